//! The `google.pubsub.v1.SchemaService`. There are no schemas: lists are empty, and none can be made.

use broker_core::ProjectName;
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::schema_service_server;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::parse::{name, page};
use super::status::Invalid;

/// Answers for a broker without schemas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schemas;

#[tonic::async_trait]
impl schema_service_server::SchemaService for Schemas {
    async fn list_schemas(
        &self,
        request: Request<pb::ListSchemasRequest>,
    ) -> Result<Response<pb::ListSchemasResponse>, Status> {
        let request = request.into_inner();
        let _: ProjectName = name("parent", &request.parent)?;
        page::<String>(request.page_size, &request.page_token)?;
        Ok(Response::new(pb::ListSchemasResponse::default()))
    }

    async fn list_schema_revisions(
        &self,
        request: Request<pb::ListSchemaRevisionsRequest>,
    ) -> Result<Response<pb::ListSchemaRevisionsResponse>, Status> {
        let request = request.into_inner();
        check_schema(&request.name)?;
        page::<String>(request.page_size, &request.page_token)?;
        Ok(Response::new(pb::ListSchemaRevisionsResponse::default()))
    }

    async fn get_schema(&self, request: Request<pb::GetSchemaRequest>) -> Result<Response<pb::Schema>, Status> {
        let schema = request.into_inner().name;
        check_schema(&schema)?;
        let message = format!("schema `{schema}` does not exist");
        let details = ErrorDetails::with_resource_info("schema", schema, "", message.as_str());
        Err(Status::with_error_details(Code::NotFound, message, details))
    }

    async fn create_schema(&self, _: Request<pb::CreateSchemaRequest>) -> Result<Response<pb::Schema>, Status> {
        Err(missing("CreateSchema"))
    }

    async fn commit_schema(&self, _: Request<pb::CommitSchemaRequest>) -> Result<Response<pb::Schema>, Status> {
        Err(missing("CommitSchema"))
    }

    async fn rollback_schema(&self, _: Request<pb::RollbackSchemaRequest>) -> Result<Response<pb::Schema>, Status> {
        Err(missing("RollbackSchema"))
    }

    async fn delete_schema_revision(
        &self,
        _: Request<pb::DeleteSchemaRevisionRequest>,
    ) -> Result<Response<pb::Schema>, Status> {
        Err(missing("DeleteSchemaRevision"))
    }

    async fn delete_schema(&self, _: Request<pb::DeleteSchemaRequest>) -> Result<Response<()>, Status> {
        Err(missing("DeleteSchema"))
    }

    async fn validate_schema(
        &self,
        _: Request<pb::ValidateSchemaRequest>,
    ) -> Result<Response<pb::ValidateSchemaResponse>, Status> {
        Err(missing("ValidateSchema"))
    }

    async fn validate_message(
        &self,
        _: Request<pb::ValidateMessageRequest>,
    ) -> Result<Response<pb::ValidateMessageResponse>, Status> {
        Err(missing("ValidateMessage"))
    }
}

fn missing(rpc: &str) -> Status {
    Status::unimplemented(format!("`SchemaService.{rpc}` is not there: this broker keeps no schemas"))
}

/// `projects/{project}/schemas/{schema}`; what stands behind an `@` names a revision.
fn check_schema(schema: &str) -> Result<(), Invalid> {
    let form =
        || Invalid::new("name", format!("`{schema}` does not have the form `projects/{{project}}/schemas/{{schema}}`"));
    let (project, id) = schema.split_once("/schemas/").ok_or_else(form)?;
    name::<ProjectName>("name", project)?;
    if id.is_empty() || id.contains('/') { Err(form()) } else { Ok(()) }
}
