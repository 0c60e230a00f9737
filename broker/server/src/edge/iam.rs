//! The `google.iam.v1.IAMPolicy` service. Policies are kept and given back; nothing is permitted or forbidden by them.

use std::str::FromStr;

use broker_core::{Policy, ResourceName};
use orderflow_proto::google::iam::v1 as pb;
use orderflow_proto::google::iam::v1::iam_policy_server;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::parse::name;
use super::status::Invalid;
use crate::engine::{self, Engine};

/// The most permissions in one question.
const PERMISSIONS_MAX: usize = 1_000;
/// The most members in all bindings of a policy together, as the public API has it.
const MEMBERS_MAX: usize = 1_500;
/// The versions of the format of a policy.
const VERSIONS: [i32; 3] = [0, 1, VERSION_WITH_CONDITIONS];
/// The version that a policy needs whose bindings have conditions.
const VERSION_WITH_CONDITIONS: i32 = 3;

/// Keeps the policies of topics, subscriptions and snapshots.
#[derive(Debug)]
pub(crate) struct Iam<E> {
    engine: E,
}

impl<E> Iam<E> {
    pub(crate) fn new(engine: E) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl<E: Engine> iam_policy_server::IamPolicy for Iam<E> {
    async fn set_iam_policy(&self, request: Request<pb::SetIamPolicyRequest>) -> Result<Response<pb::Policy>, Status> {
        let pb::SetIamPolicyRequest { resource, policy, update_mask } = request.into_inner();
        let resource: ResourceName = name("resource", &resource)?;
        let policy = policy.ok_or_else(|| Invalid::new("policy", "must be set"))?;
        check(&policy).map_err(|invalid| invalid.within("policy"))?;
        let fields = Field::all(update_mask)?;
        let changed = resource.clone();
        let change = move |stands: &Policy| {
            if fields.contains(&Field::Etag) && !policy.etag.is_empty() && policy.etag != etag(stands) {
                return Err(engine::Error::PolicyChanged(changed));
            }
            let mut next = decoded(stands);
            for field in fields {
                field.take_over(&mut next, &policy);
            }
            check(&next).map_err(|invalid| invalid.within("policy"))?;
            Ok(next.encode_to_vec())
        };
        Ok(Response::new(shown(&self.engine.update_policy(resource, change).await?)))
    }

    async fn get_iam_policy(&self, request: Request<pb::GetIamPolicyRequest>) -> Result<Response<pb::Policy>, Status> {
        let pb::GetIamPolicyRequest { resource, options } = request.into_inner();
        let resource = name("resource", &resource)?;
        let version = options.unwrap_or_default().requested_policy_version;
        check_version("options.requested_policy_version", version)?;
        Ok(Response::new(shown(&self.engine.policy(resource).await?)))
    }

    /// Whoever asks may do everything.
    async fn test_iam_permissions(
        &self,
        request: Request<pb::TestIamPermissionsRequest>,
    ) -> Result<Response<pb::TestIamPermissionsResponse>, Status> {
        let pb::TestIamPermissionsRequest { resource, permissions } = request.into_inner();
        let resource = name("resource", &resource)?;
        if permissions.len() > PERMISSIONS_MAX {
            let why = format!("{} permissions are more than {PERMISSIONS_MAX}", permissions.len());
            return Err(Invalid::new("permissions", why).into());
        }
        if let Some(wrong) = permissions.iter().find(|permission| permission.is_empty() || permission.contains('*')) {
            return Err(Invalid::new("permissions", format!("`{wrong}` is not a permission")).into());
        }
        self.engine.policy(resource).await?;
        Ok(Response::new(pb::TestIamPermissionsResponse { permissions }))
    }
}

/// What an update of a policy can take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Version,
    Bindings,
    AuditConfigs,
    Etag,
}

impl Field {
    /// The fields that a mask names.
    fn all(mask: Option<prost_types::FieldMask>) -> Result<Vec<Self>, Invalid> {
        match mask {
            Some(mask) if !mask.paths.is_empty() => mask.paths.iter().map(|path| path.parse()).collect(),
            _ => Ok(vec![Self::Version, Self::Bindings, Self::Etag]),
        }
    }

    fn take_over(self, policy: &mut pb::Policy, update: &pb::Policy) {
        match self {
            Self::Version => policy.version = update.version,
            Self::Bindings => policy.bindings.clone_from(&update.bindings),
            Self::AuditConfigs => policy.audit_configs.clone_from(&update.audit_configs),
            // It is compared, and then made anew.
            Self::Etag => {}
        }
    }
}

impl FromStr for Field {
    type Err = Invalid;

    fn from_str(path: &str) -> Result<Self, Invalid> {
        match path {
            "version" => Ok(Self::Version),
            "bindings" => Ok(Self::Bindings),
            "audit_configs" => Ok(Self::AuditConfigs),
            "etag" => Ok(Self::Etag),
            _ => Err(Invalid::new("update_mask", format!("`{path}` is not a field of a policy"))),
        }
    }
}

fn check(policy: &pb::Policy) -> Result<(), Invalid> {
    check_version("version", policy.version)?;
    let members: usize = policy.bindings.iter().map(|binding| binding.members.len()).sum();
    if members > MEMBERS_MAX {
        return Err(Invalid::new("bindings", format!("{members} members are more than {MEMBERS_MAX}")));
    }
    for (at, binding) in policy.bindings.iter().enumerate() {
        let invalid = |field, why| Err(Invalid::new(format!("bindings[{at}].{field}"), why));
        if binding.role.is_empty() {
            return invalid("role", "must be set");
        }
        if binding.members.iter().any(String::is_empty) {
            return invalid("members", "must not be empty texts");
        }
        if binding.condition.is_some() && policy.version != VERSION_WITH_CONDITIONS {
            return invalid("condition", "needs a policy of version 3");
        }
    }
    Ok(())
}

fn check_version(field: &str, version: i32) -> Result<(), Invalid> {
    if VERSIONS.contains(&version) {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{version} is not 0, 1 or 3")))
}

/// A policy as its callers see it.
fn shown(policy: &Policy) -> pb::Policy {
    pb::Policy { etag: etag(policy), ..decoded(policy) }
}

fn etag(policy: &Policy) -> Vec<u8> {
    policy.revision.to_be_bytes().to_vec()
}

/// What a policy says. Only what was a policy is ever kept.
fn decoded(policy: &Policy) -> pb::Policy {
    pb::Policy { etag: Vec::new(), ..pb::Policy::decode(policy.body.as_slice()).unwrap_or_default() }
}
