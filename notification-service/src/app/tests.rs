use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::bells::Bells;
use super::*;
use crate::domain::Kind;

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(10);

/// One customer's notifications in memory, with a hook that runs between a read and its return.
#[derive(Debug, Default)]
struct Memory {
    notifications: Mutex<Vec<Notification>>,
    /// What arrives during the next read.
    arrives_during_read: Mutex<Option<Draft>>,
    app: OnceLock<App<Memory>>,
}

impl Notifications for Memory {
    async fn keep(&self, draft: Draft, now: TimestampUs) -> Result<Option<Notification>, StoreError> {
        let mut notifications = self.notifications.lock().unwrap();
        let number = i64::try_from(notifications.len()).unwrap() + 1;
        notifications.push(Notification { number, draft, created_at: now, emailed_at: None });
        Ok(notifications.last().cloned())
    }

    async fn keep_invoice(&self, _: Invoice, _: Bytes, _: Draft, _: TimestampUs) -> Result<InvoiceFate, StoreError> {
        unreachable!("no invoice arrives here")
    }

    async fn acknowledge(&self, _: CustomerId, _: i64) -> Result<Option<i64>, StoreError> {
        unreachable!("nothing is acknowledged here")
    }

    async fn acknowledged(&self, _: &CustomerId) -> Result<i64, StoreError> {
        Ok(0)
    }

    async fn invoice(&self, _: &str) -> Result<Option<(KeptInvoice, Vec<u8>)>, StoreError> {
        Ok(None)
    }

    async fn invoices(&self, _: i64, _: u32) -> Result<Vec<KeptInvoice>, StoreError> {
        Ok(Vec::new())
    }

    async fn list(&self, _: &CustomerId, _: Option<&str>, after: i64, _: u32) -> Result<Vec<Notification>, StoreError> {
        let read = self.notifications.lock().unwrap().iter().filter(|n| n.number > after).cloned().collect();
        let arriving = self.arrives_during_read.lock().unwrap().take();
        if let (Some(draft), Some(app)) = (arriving, self.app.get()) {
            Box::pin(app.notify(draft)).await?;
        }
        Ok(read)
    }
}

fn customer(id: &str) -> CustomerId {
    CustomerId::parse(id).unwrap()
}

fn a_draft(event_id: &str) -> Draft {
    Draft {
        customer_id: customer("ada"),
        order_id: "o-1".to_owned(),
        kind: Kind::OrderReceived,
        text: String::new(),
        event_id: event_id.to_owned(),
        email: None,
    }
}

#[tokio::test]
async fn what_arrives_between_a_read_and_the_waiting_is_not_missed() {
    let app = App::new(Memory::default(), || 1_700_000_000_000_000);
    app.store.app.set(app.clone()).unwrap();
    let mut watch = app.watch(customer("ada"), 0).unwrap();
    for expected in ["e-1", "e-2"] {
        *app.store.arrives_during_read.lock().unwrap() = Some(a_draft(expected));
        let next = tokio::time::timeout(DEADLINE, watch.next()).await.expect("the watch hangs").unwrap();
        assert_eq!(next.iter().map(|n| n.draft.event_id.as_str()).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn watches_are_limited_and_give_their_places_back() {
    let bells = Arc::<Bells>::default();
    let (ada, bob) = (customer("ada"), customer("bob"));
    let mut listeners: Vec<_> = (1..WATCHES_MAX).map(|_| bells.hear(&ada).unwrap()).collect();
    listeners.push(bells.hear(&bob).unwrap());
    assert!(bells.hear(&bob).is_none());
    listeners.pop();
    listeners.push(bells.hear(&ada).unwrap());
    listeners.clear();
    assert!(bells.is_empty());
}

#[tokio::test]
async fn a_ring_before_the_listening_is_not_lost_and_one_before_the_silence_is() {
    let bells = Arc::<Bells>::default();
    let mut bell = bells.hear(&customer("ada")).unwrap();
    bell.silence();
    bells.ring(&customer("ada"));
    bell.rung().await;
    bells.ring(&customer("ada"));
    bell.silence();
    bells.ring(&customer("bob"));
    let rung = tokio::spawn(async move { bell.rung().await });
    tokio::task::yield_now().await;
    assert!(!rung.is_finished());
    bells.ring(&customer("ada"));
    rung.await.unwrap();
}
