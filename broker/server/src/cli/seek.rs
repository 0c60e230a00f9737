//! `broker seek`.

use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::seek_request::Target;
use prost_types::Timestamp;

use super::error::Error;
use super::output;
use super::remote::Remote;
use super::units;

/// Behind all that is published: the last second that a timestamp can hold.
const END: Timestamp = Timestamp { seconds: 253_402_300_799, nanos: 0 };
/// Before all that is published.
const START: Timestamp = Timestamp { seconds: 0, nanos: 0 };

/// Where a subscription goes.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("to").required(true)))]
pub struct Seek {
    /// The subscription
    subscription: String,
    /// To what was published from this time on, such as `2026-01-31T12:00:00Z`, or `10m` for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = units::time, group = "to")]
    time: Option<Timestamp>,
    /// To what a snapshot remembers
    #[arg(long, value_name = "SNAPSHOT", group = "to")]
    snapshot: Option<String>,
    /// To the oldest message that is kept; acked ones are kept only with `--retain-acked` or a topic's retention
    #[arg(long, group = "to")]
    to_start: bool,
    /// Behind the last message: drops all that is there now
    #[arg(long, group = "to")]
    to_end: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Seek {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let Self { subscription, time, snapshot, to_start: _, to_end, remote } = self;
        let (target, place) = match (time, snapshot) {
            (Some(time), _) => (Target::Time(time), time.to_string()),
            (None, Some(snapshot)) => {
                let snapshot = remote.snapshot(&snapshot);
                (Target::Snapshot(snapshot.clone()), snapshot)
            }
            (None, None) if to_end => (Target::Time(END), "its end".to_owned()),
            (None, None) => (Target::Time(START), "its start".to_owned()),
        };
        let subscription = remote.subscription(&subscription);
        let request = pb::SeekRequest { subscription: subscription.clone(), target: Some(target) };
        remote.subscriber().await?.seek(request).await?;
        output::done(remote.is_json(), &format!("{subscription} is at {place}"))
    }
}
