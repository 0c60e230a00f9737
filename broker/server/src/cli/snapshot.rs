//! `broker snapshot`.

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use tonic::transport::Channel;

use super::error::Error;
use super::output::{self, to_json};
use super::remote::Remote;
use super::table::{Column, Table};
use super::units;

const SNAPSHOT: &str = "google.pubsub.v1.Snapshot";

/// What can be done with snapshots.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Snapshot {
    /// Remember what a subscription has acked, to seek back to it
    Create(Create),
    /// List the snapshots of the project
    List(List),
    /// Delete a snapshot
    Delete(Delete),
}

/// A snapshot to create.
#[derive(Clone, Debug, clap::Args)]
pub struct Create {
    /// Its name, such as `before-deploy` or `projects/orderflow/snapshots/before-deploy`
    snapshot: String,
    /// The subscription that it is taken of
    #[arg(long, value_name = "SUBSCRIPTION")]
    subscription: String,
    /// Labels
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = units::key_value)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    remote: Remote,
}

/// Which snapshots to list.
#[derive(Clone, Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    remote: Remote,
}

/// Which snapshot is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Delete {
    /// Its name
    snapshot: String,
    #[command(flatten)]
    remote: Remote,
}

impl Snapshot {
    pub(super) async fn execute(self) -> Result<(), Error> {
        match self {
            Self::Create(create) => create.execute().await,
            Self::List(list) => list.execute().await,
            Self::Delete(delete) => delete.execute().await,
        }
    }
}

impl Create {
    async fn execute(self) -> Result<(), Error> {
        let Self { snapshot, subscription, labels, remote } = self;
        let request = pb::CreateSnapshotRequest {
            name: remote.snapshot(&snapshot),
            subscription: remote.subscription(&subscription),
            labels: labels.into_iter().collect(),
            ..Default::default()
        };
        let created = remote.subscriber().await?.create_snapshot(request).await?.into_inner();
        if remote.is_json() {
            return output::document(&to_json(SNAPSHOT, &created)?);
        }
        output::line(&format!("created {}, until {}", created.name, units::iso(created.expire_time.as_ref())))
    }
}

impl List {
    async fn execute(self) -> Result<(), Error> {
        let Self { remote } = self;
        let snapshots = all(&mut remote.subscriber().await?, &remote.project()).await?;
        if remote.is_json() {
            let shown: Vec<_> = snapshots.iter().map(|one| to_json(SNAPSHOT, one)).collect::<Result<_, _>>()?;
            return output::document(&shown.into());
        }
        if snapshots.is_empty() {
            return output::none("snapshots", &remote.project(), "snapshot create NAME --subscription SUBSCRIPTION");
        }
        let head = [Column::Left("SNAPSHOT"), Column::Left("TOPIC"), Column::Left("EXPIRES"), Column::Left("LABELS")];
        let mut table = Table::new(head);
        for snapshot in &snapshots {
            table.row([
                remote.shown(&snapshot.name),
                remote.shown(&snapshot.topic),
                units::iso(snapshot.expire_time.as_ref()),
                units::labels(&snapshot.labels),
            ]);
        }
        output::line(&table.to_string())
    }
}

impl Delete {
    async fn execute(self) -> Result<(), Error> {
        let Self { snapshot, remote } = self;
        let snapshot = remote.snapshot(&snapshot);
        let request = pb::DeleteSnapshotRequest { snapshot: snapshot.clone() };
        remote.subscriber().await?.delete_snapshot(request).await?;
        output::done(remote.is_json(), &format!("deleted {snapshot}"))
    }
}

async fn all(subscriber: &mut SubscriberClient<Channel>, project: &str) -> Result<Vec<pb::Snapshot>, Error> {
    let mut request = pb::ListSnapshotsRequest { project: project.to_owned(), ..Default::default() };
    let mut snapshots = Vec::new();
    loop {
        let page = subscriber.list_snapshots(request.clone()).await?.into_inner();
        snapshots.extend(page.snapshots);
        if page.next_page_token.is_empty() {
            return Ok(snapshots);
        }
        request.page_token = page.next_page_token;
    }
}
