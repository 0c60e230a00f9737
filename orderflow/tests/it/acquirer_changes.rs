//! What becomes of a charge later: captured, voided, refunded, cancelled; and how the acquirer behaves meanwhile.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use orderflow::acquirer::{Answer, Behaviour, ChargeStatus, ClientError, Mode};
use serde_json::{Value, json};
use service_kit::db::{self, Database, KIT_VERSION_MAX, Migration};
use tempfile::TempDir;

use crate::acquirer::{Running, body, json_of, replayed};

impl Running {
    async fn hold(&self, key: &str) -> String {
        let mut held = body("tok_visa");
        held["capture"] = json!(false);
        let reply = json_of(&self.charge(key, &held).await.unwrap());
        assert_eq!(reply["status"], "authorised");
        reply["id"].as_str().unwrap().to_owned()
    }

    async fn take(&self, key: &str, card: &str) -> String {
        json_of(&self.charge(key, &body(card)).await.unwrap())["id"].as_str().unwrap().to_owned()
    }

    async fn change(&self, id: &str, verb: &str, key: &str, body: &str) -> Answer {
        let path = format!("/v1/charges/{id}/{verb}");
        self.client.call(Method::POST, &path, &[("Idempotency-Key", key)], body.to_owned()).await.unwrap()
    }

    async fn cancel(&self, key: &str) -> Result<Answer, ClientError> {
        let body = json!({"idempotency_key": key}).to_string();
        self.client.call(Method::POST, "/v1/cancellations", &[], body).await
    }

    async fn cancelled(&self, key: &str) -> Value {
        json_of(&self.cancel(key).await.unwrap())
    }

    /// Money that was taken minus money that went back, over the whole ledger, step by step.
    async fn kept_minor(&self) -> i64 {
        let steps = self.client.ledger().await.unwrap().into_iter().flat_map(|entry| entry.movements);
        steps
            .map(|step| match step.kind {
                ChargeStatus::Captured => step.amount_minor,
                ChargeStatus::Refunded => -step.amount_minor,
                ChargeStatus::Authorised | ChargeStatus::Declined | ChargeStatus::Voided => 0,
            })
            .sum()
    }
}

#[tokio::test]
async fn held_money_is_taken_or_let_go_once_and_survives_a_restart() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    let (one, two) = (acquirer.hold("one").await, acquirer.hold("two").await);
    assert_eq!(acquirer.kept_minor().await, 0);
    for expect_replay in [false, true] {
        let captured = acquirer.change(&one, "capture", "capture-one", "").await;
        assert_eq!((captured.status, replayed(&captured)), (StatusCode::OK, expect_replay));
        assert_eq!(json_of(&captured)["status"], "captured");
        let voided = acquirer.change(&two, "void", "void-two", "{}").await;
        assert_eq!((voided.status, replayed(&voided)), (StatusCode::OK, expect_replay));
        assert_eq!(json_of(&voided)["status"], "voided");
    }
    acquirer.stop().await;
    let acquirer = Running::start(&folder).await;
    assert_eq!(acquirer.kept_minor().await, 1_299);
    let entry = acquirer.client.charge(&one).await.unwrap();
    let kinds: Vec<_> = entry.movements.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, [ChargeStatus::Authorised, ChargeStatus::Captured]);
    acquirer.stop().await;
}

#[tokio::test]
async fn a_refund_gives_back_what_was_taken_and_no_more() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    let id = acquirer.take("key", "tok_visa").await;
    let part = acquirer.change(&id, "refund", "first", r#"{"amount_minor":299}"#).await;
    let part = json_of(&part);
    assert_eq!((&part["status"], &part["refunded_minor"]), (&json!("captured"), &json!(299)));
    for amount in ["0", "-1", "1001"] {
        let refused = acquirer.change(&id, "refund", "second", &format!(r#"{{"amount_minor":{amount}}}"#)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{amount}");
    }
    for expect_replay in [false, true] {
        let rest = acquirer.change(&id, "refund", "second", "").await;
        assert_eq!((rest.status, replayed(&rest)), (StatusCode::OK, expect_replay));
        let rest = json_of(&rest);
        assert_eq!((&rest["status"], &rest["refunded_minor"]), (&json!("refunded"), &json!(1_299)));
        assert!(rest["refund_id"].as_str().unwrap().starts_with("re_"), "{rest}");
        assert_ne!(rest["refund_id"], part["refund_id"]);
    }
    assert_eq!(acquirer.kept_minor().await, 0);
    acquirer.stop().await;
}

#[tokio::test]
async fn a_step_that_the_charge_does_not_allow_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    let held = acquirer.hold("held").await;
    let taken = acquirer.take("taken", "tok_visa").await;
    let declined = acquirer.take("declined", "tok_stolen_card").await;
    let before = acquirer.client.ledger().await.unwrap();
    let table = [
        (&held, "refund", "", StatusCode::CONFLICT),
        (&held, "capture", r#"{"amount_minor":1}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (&held, "void", r#"{"amount_minor":1300}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (&held, "void", r#"{"amount":1299}"#, StatusCode::BAD_REQUEST),
        (&held, "void", "nonsense", StatusCode::BAD_REQUEST),
        (&held, "eat", "", StatusCode::BAD_REQUEST),
        (&taken, "capture", "", StatusCode::CONFLICT),
        (&taken, "void", "", StatusCode::CONFLICT),
        (&declined, "capture", "", StatusCode::CONFLICT),
        (&declined, "void", "", StatusCode::CONFLICT),
        (&declined, "refund", "", StatusCode::CONFLICT),
        (&"ch_nobody".to_owned(), "refund", "", StatusCode::NOT_FOUND),
    ];
    for (id, verb, body, expected) in table {
        let refused = acquirer.change(id, verb, "key", body).await;
        assert_eq!(refused.status, expected, "{verb} {id} {body}");
    }
    let path = format!("/v1/charges/{taken}/refund");
    assert_eq!(acquirer.code(Method::POST, &path, "").await, StatusCode::BAD_REQUEST, "without a key");
    assert_eq!(acquirer.code(Method::GET, "/v1/charges/ch_nobody", "").await, StatusCode::NOT_FOUND);
    for bad in ["", "{}", r#"{"idempotency_key":""}"#, r#"{"idempotency_key":"k","more":1}"#] {
        assert_eq!(acquirer.code(Method::POST, "/v1/cancellations", bad).await, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(acquirer.client.ledger().await.unwrap(), before);

    // A key that has done something else stands for that.
    assert_eq!(acquirer.change(&taken, "refund", "key", "").await.status, StatusCode::OK);
    assert_eq!(acquirer.change(&held, "void", "key", "").await.status, StatusCode::CONFLICT);
    assert_eq!(acquirer.change(&taken, "refund", "key", r#"{"amount_minor":1}"#).await.status, StatusCode::CONFLICT);
    acquirer.stop().await;
}

#[tokio::test]
async fn a_cancellation_leaves_nothing_taken_whatever_it_meets() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    acquirer.take("taken", "tok_visa").await;
    acquirer.hold("held").await;
    acquirer.take("declined", "tok_stolen_card").await;
    let table = [("taken", "refunded"), ("held", "voided"), ("declined", "declined"), ("unknown", "blocked")];
    let mut first = Vec::new();
    for (key, outcome) in table {
        let reply = acquirer.cancelled(key).await;
        assert_eq!(reply["outcome"], outcome, "{key}");
        first.push(reply);
    }
    assert_eq!((&first[0]["charge"]["refunded_minor"], acquirer.kept_minor().await), (&json!(1_299), 0));
    acquirer.stop().await;

    // The same again, after a restart, has the same answers.
    let acquirer = Running::start(&folder).await;
    for ((key, _), first) in table.iter().zip(&first) {
        let again = acquirer.cancel(key).await.unwrap();
        assert!(replayed(&again) && json_of(&again) == *first, "{key}");
    }
    for expect_replay in [false, true] {
        let late = acquirer.charge("unknown", &body("tok_visa")).await.unwrap();
        assert_eq!((late.status, replayed(&late)), (StatusCode::PAYMENT_REQUIRED, expect_replay));
        assert_eq!(json_of(&late)["reason"], "cancelled");
    }
    assert_eq!(acquirer.cancelled("unknown").await["outcome"], "blocked");
    let again = json_of(&acquirer.charge("taken", &body("tok_visa")).await.unwrap());
    assert_eq!(again["status"], "refunded", "a repeated charge hears how it stands now");
    assert_eq!(acquirer.kept_minor().await, 0);
    acquirer.stop().await;
}

#[tokio::test]
async fn charges_and_cancellations_at_once_leave_nothing_taken() {
    let folder = TempDir::new().unwrap();
    let acquirer = Arc::new(Running::start(&folder).await);
    let mut tasks = tokio::task::JoinSet::new();
    for round in 0..20 {
        for task in 0..4 {
            let acquirer = Arc::clone(&acquirer);
            tasks.spawn(async move {
                let key = format!("key-{round}");
                if (round + task) % 2 == 0 {
                    acquirer.charge(&key, &body("tok_visa")).await.unwrap();
                } else {
                    acquirer.cancel(&key).await.unwrap();
                }
            });
        }
    }
    tasks.join_all().await;
    let ledger = acquirer.client.ledger().await.unwrap();
    assert_eq!(ledger.len(), 20);
    assert_eq!(acquirer.kept_minor().await, 0);
    for entry in ledger {
        let refunds = entry.movements.iter().filter(|step| step.kind == ChargeStatus::Refunded).count();
        assert_eq!(refunds, usize::from(entry.charge.status == ChargeStatus::Refunded), "{entry:?}");
    }
}

#[tokio::test]
async fn cards_that_fail_first_succeed_later_and_once() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    for expected in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK, StatusCode::OK] {
        assert_eq!(acquirer.charge("flaky", &body("tok_flaky")).await.unwrap().status, expected);
    }
    acquirer.take("refund-flaky", "tok_refund_flaky").await;
    for expected in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK, StatusCode::OK] {
        assert_eq!(acquirer.cancel("refund-flaky").await.unwrap().status, expected);
    }
    acquirer.take("refund-lost", "tok_refund_lost_reply").await;
    let lost = acquirer.cancel("refund-lost").await;
    assert!(lost.is_err(), "{lost:?}");
    assert_eq!(acquirer.cancelled("refund-lost").await["outcome"], "refunded");
    assert_eq!(acquirer.kept_minor().await, 1_299, "the flaky charge alone");
    acquirer.stop().await;
}

#[tokio::test]
async fn the_behaviour_can_be_changed_and_asked_for_while_it_runs() {
    let folder = TempDir::new().unwrap();
    let acquirer = Running::start(&folder).await;
    assert_eq!(acquirer.client.behaviour().await.unwrap(), Behaviour::always(Mode::Normal));
    acquirer.client.behave(Mode::DeclineAll).await.unwrap();
    assert_eq!(acquirer.client.behaviour().await.unwrap(), Behaviour::always(Mode::DeclineAll));
    let declined = json_of(&acquirer.charge("declined", &body("tok_visa")).await.unwrap());
    assert_eq!(declined["reason"], "do_not_honour");

    acquirer.client.behave(Mode::LostReplies).await.unwrap();
    let lost = acquirer.charge("lost", &body("tok_visa")).await;
    assert!(lost.is_err(), "{lost:?}");
    let lost = acquirer.cancel("lost").await;
    assert!(lost.is_err(), "{lost:?}");

    acquirer.client.behave(Mode::Unavailable).await.unwrap();
    assert_eq!(acquirer.cancel("lost").await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    for bad in [r#"{"mode":"normal","percent":0}"#, r#"{"mode":"normal","percent":101}"#, r#"{"percent":1}"#] {
        assert_eq!(acquirer.code(Method::PUT, "/v1/behaviour", bad).await, StatusCode::BAD_REQUEST, "{bad}");
    }
    acquirer.client.behave(Mode::Normal).await.unwrap();
    let ledger = acquirer.client.ledger().await.unwrap();
    assert_eq!(ledger[1].charge.status, ChargeStatus::Refunded, "what was lost was done all the same");
    acquirer.stop().await;
}

#[tokio::test]
async fn a_ledger_from_before_refunds_is_read_and_can_be_refunded() {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}/acquirer.db", folder.path().display());
    let first = Migration {
        version: KIT_VERSION_MAX + 1,
        name: "ledger",
        sql: include_str!("../../migrations/0100_ledger.sql"),
    };
    let database = Database::open(&url, &[first]).await.unwrap();
    let insert = database.write(|connection| {
        Box::pin(async move {
            let sql = "INSERT INTO charges (number, idempotency_key, id, status, amount_minor, currency, card, \
                 reference) VALUES (1, 'old', 'ch_old', 'captured', 1299, 'EUR', 'tok_visa', 'order-1')";
            sqlx::query(sql).execute(connection).await?;
            Ok::<_, db::Error>(())
        })
    });
    insert.await.unwrap();
    drop(database);
    let acquirer = Running::start(&folder).await;
    assert_eq!(acquirer.kept_minor().await, 1_299);
    assert!(replayed(&acquirer.charge("old", &body("tok_visa")).await.unwrap()));
    assert_eq!(acquirer.cancelled("old").await["outcome"], "refunded");
    assert_eq!(acquirer.kept_minor().await, 0);
    acquirer.stop().await;
}
