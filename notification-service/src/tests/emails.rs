//! Notifications become e-mails, on a real connection to a mail server.

use std::collections::HashSet;

use super::smtp::{Mood, Smtp};
use super::*;
use crate::email::{EmailConfig, SEND_MS_MAX, Sender, Settings};

const ADA: &str = "ada@example.org";

/// Settings that do not let a test wait.
const QUICK: Settings = Settings { retry_ms: 1, retry_ms_max: 5, send_ms_max: SEND_MS_MAX };

/// Starts to send what the harness queues; stops when it is dropped.
struct Sending(tokio::task::JoinHandle<()>);

impl Sending {
    fn start(harness: &Harness, url: &str) -> Self {
        Self::with(harness, url, QUICK)
    }

    fn with(harness: &Harness, url: &str, settings: Settings) -> Self {
        let config = EmailConfig { url: url.to_owned(), from: "Shop <shop@example.org>".to_owned() };
        let transport = config.transport().unwrap().unwrap();
        let sender = Sender::new(harness.app.clone(), transport).with(settings);
        Self(tokio::spawn(sender.run(harness.stopping.clone())))
    }

    /// Ends it wherever it is, as a kill does.
    async fn kill(mut self) {
        self.0.abort();
        drop((&mut self.0).await);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn with_address(event: events::OrderEvent, order_id: &str, address: &str) -> Vec<u8> {
    let (order_id, customer_email) = (order_id.to_owned(), address.to_owned());
    events::OrderEvent { order_id, customer_email, ..event }.encode_to_vec()
}

fn captured(order_id: &str) -> Vec<u8> {
    let captured = payment_event("ada", PaymentBody::Captured(events::PaymentCaptured::default()));
    events::PaymentEvent { order_id: order_id.to_owned(), ..captured }.encode_to_vec()
}

async fn place(harness: &Harness, number: u32, customer: &str, address: &str) {
    let payload = with_address(placed(customer), &format!("o-{number}"), address);
    assert_eq!(harness.order(&message(&format!("e-{number}"), PLACED, payload)).await, Outcome::Done);
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "it did not come true in time: {what}");
}

/// Whether every notification of the customer has been handed to the mail server.
async fn all_sent(harness: &Harness, customer: &str) -> bool {
    harness.list(customer).await.iter().all(|notification| notification.email_time.is_some())
}

async fn column(harness: &Harness, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(harness.database.reads()).await.unwrap()
}

#[tokio::test]
async fn each_notification_becomes_one_mail_in_the_order_of_the_customer() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    let _sending = Sending::start(&harness, &smtp.url());
    for _ in 0..2 {
        for number in 1..=5 {
            place(&harness, number, "ada", ADA).await;
            place(&harness, 10 + number, "bob", "bob@example.org").await;
        }
    }
    until("all is sent", async || all_sent(&harness, "ada").await && all_sent(&harness, "bob").await).await;
    let mails = smtp.mails();
    assert_eq!(mails.len(), 10);
    let subjects: Vec<_> = mails.iter().filter(|mail| mail.to == ADA).map(|mail| mail.header("Subject")).collect();
    let expected: Vec<_> = (1..=5).map(|number| format!("We have received your order o-{number}")).collect();
    assert_eq!(subjects, expected);
    assert!(mails[0].text.contains("12.99 EUR"), "{}", mails[0].text);
    let ids: HashSet<_> = mails.iter().map(|mail| mail.header("Message-ID").to_owned()).collect();
    assert_eq!(ids.len(), 10);
}

#[tokio::test]
async fn of_notifications_that_share_a_commit_the_first_one_is_mailed_first() {
    let harness = Harness::start().await;
    let (busy, free) = (CancellationToken::new(), CancellationToken::new());
    let (is_busy, until_free) = (busy.clone(), free.clone());
    let hold = harness.database.write(move |_| {
        Box::pin(async move {
            is_busy.cancel();
            until_free.cancelled().await;
            Ok::<_, db::Error>(())
        })
    });
    let share = async {
        busy.cancelled().await;
        // The id of the second order is the smaller one.
        let both = async { tokio::join!(place(&harness, 9, "ada", ADA), place(&harness, 1, "ada", ADA)) };
        let release = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            free.cancel();
        };
        tokio::join!(both, release);
    };
    let (held, ()) = tokio::join!(hold, share);
    held.unwrap();
    let due = "SELECT order_id FROM notifications n JOIN emails e ON e.customer_id = n.customer_id AND \
         e.number = n.number WHERE n.number = 1 AND e.due_at_us < 9223372036854775807";
    assert_eq!(column(&harness, due).await, ["o-9"]);
    let waiting = "SELECT order_id FROM notifications n JOIN emails e ON e.customer_id = n.customer_id AND \
         e.number = n.number WHERE n.number = 2 AND e.due_at_us = 9223372036854775807";
    assert_eq!(column(&harness, waiting).await, ["o-1"]);
}

#[tokio::test]
async fn an_event_of_a_payment_that_overtakes_its_order_gets_its_mail_when_the_address_is_known() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    let _sending = Sending::start(&harness, &smtp.url());
    assert_eq!(harness.payment(&message("p-1", CAPTURED, captured("o-1"))).await, Outcome::Done);
    place(&harness, 1, "ada", ADA).await;
    until("both are sent", async || all_sent(&harness, "ada").await).await;
    let subjects: Vec<_> = smtp.mails().iter().map(|mail| mail.header("Subject").to_owned()).collect();
    assert_eq!(subjects, ["We have charged your card for order o-1", "We have received your order o-1"]);
}

#[tokio::test]
async fn without_an_address_or_a_mail_server_there_is_no_mail() {
    let harness = Harness::start().await;
    place(&harness, 1, "ada", "").await;
    let silent = Harness::without_emails().await;
    place(&silent, 1, "ada", ADA).await;
    for harness in [harness, silent] {
        assert_eq!(harness.list("ada").await.len(), 1);
        assert_eq!(column(&harness, "SELECT address FROM emails").await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_bad_address_is_noted_and_the_customer_is_told_all_the_same() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    let _sending = Sending::start(&harness, &smtp.url());
    place(&harness, 1, "ada", "ada@example.org\r\nRCPT TO:<eve@example.org>").await;
    place(&harness, 2, "ada", ADA).await;
    until("the good one is sent", async || smtp.mails().len() == 1).await;
    let told = harness.list("ada").await;
    assert_eq!(told.iter().map(|n| n.order_id.as_str()).collect::<Vec<_>>(), ["o-1", "o-2"]);
    assert!(told[0].email_time.is_none());
    let reasons = column(&harness, "SELECT reason FROM emails WHERE state = 'REFUSED'").await;
    assert_eq!(reasons, ["the address is not of the form name@domain"]);
    assert_eq!(smtp.mails()[0].to, ADA);
}

#[tokio::test]
async fn a_refused_mail_is_marked_with_the_reason_and_blocks_nobody() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    smtp.moods(ADA, &[Mood::Says("550 no such mailbox")]);
    let _sending = Sending::start(&harness, &smtp.url());
    place(&harness, 1, "ada", ADA).await;
    place(&harness, 2, "ada", ADA).await;
    until("the second one is sent", async || harness.list("ada").await[1].email_time.is_some()).await;
    assert!(harness.list("ada").await[0].email_time.is_none());
    let reasons = column(&harness, "SELECT reason FROM emails WHERE state = 'REFUSED'").await;
    assert!(reasons.len() == 1 && reasons[0].contains("no such mailbox"), "{reasons:?}");
    assert_eq!(smtp.mails().len(), 1);
}

#[tokio::test]
async fn a_mail_that_is_put_off_comes_later_and_the_next_one_waits_for_it() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    smtp.moods(ADA, &[Mood::Says("450 greylisted"), Mood::Says("451 later"), Mood::Says("452 full")]);
    let _sending = Sending::start(&harness, &smtp.url());
    place(&harness, 1, "ada", ADA).await;
    place(&harness, 2, "ada", ADA).await;
    until("all is sent", async || all_sent(&harness, "ada").await).await;
    let subjects: Vec<_> = smtp.mails().iter().map(|mail| mail.header("Subject").to_owned()).collect();
    assert_eq!(subjects, ["We have received your order o-1", "We have received your order o-2"]);
}

#[tokio::test]
async fn a_mail_that_is_put_off_too_often_is_given_up() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    smtp.moods(ADA, &vec![Mood::Says("450 greylisted"); 50]);
    let _sending = Sending::start(&harness, &smtp.url());
    place(&harness, 1, "ada", ADA).await;
    place(&harness, 2, "ada", ADA).await;
    until("the second one is sent", async || harness.list("ada").await[1].email_time.is_some()).await;
    let reasons = column(&harness, "SELECT reason FROM emails WHERE state = 'REFUSED'").await;
    assert!(reasons.len() == 1 && reasons[0].contains("put off 50 times"), "{reasons:?}");
}

#[tokio::test]
async fn mails_wait_for_a_mail_server_that_is_down() {
    let (harness, mut smtp) = (Harness::start().await, Smtp::down());
    let _sending = Sending::start(&harness, &smtp.url());
    for number in 1..=3 {
        place(&harness, number, "ada", ADA).await;
    }
    let claimed = "SELECT address FROM emails WHERE attempts = 0 AND due_at_us > 0";
    until("somebody tries", async || !column(&harness, claimed).await.is_empty()).await;
    smtp.revive();
    until("all is sent", async || all_sent(&harness, "ada").await).await;
    assert_eq!(smtp.mails().len(), 3);
}

#[tokio::test]
async fn a_lost_answer_repeats_the_mail_under_the_same_id() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    smtp.moods(ADA, &[Mood::HangsUp]);
    let _sending = Sending::start(&harness, &smtp.url());
    place(&harness, 1, "ada", ADA).await;
    until("it is sent", async || all_sent(&harness, "ada").await).await;
    let ids: Vec<_> = smtp.mails().iter().map(|mail| mail.header("Message-ID").to_owned()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_puts_the_mail_off_and_counts() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    smtp.moods(ADA, &[Mood::FallsSilent]);
    // Long enough for a slow machine: a try more does no harm.
    let _sending = Sending::with(&harness, &smtp.url(), Settings { send_ms_max: 500, ..QUICK });
    place(&harness, 1, "ada", ADA).await;
    until("it is sent", async || all_sent(&harness, "ada").await).await;
    assert_eq!(column(&harness, "SELECT address FROM emails WHERE attempts > 0").await, [ADA]);
    let ids: HashSet<_> = smtp.mails().iter().map(|mail| mail.header("Message-ID").to_owned()).collect();
    assert!(smtp.mails().len() >= 2 && ids.len() == 1, "{ids:?}");
}

#[tokio::test]
async fn a_mail_whose_invoice_cannot_be_read_does_not_abort_the_others() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    place(&harness, 1, "bob", "bob@example.org").await;
    let event = message("i-1", invoices::RENDERED, invoices::rendered("INV-000001", "o-2").encode_to_vec());
    assert_eq!(harness.invoice(&event).await, Outcome::Done);
    place(&harness, 3, "eve", "eve@example.org").await;
    harness.sql("UPDATE invoices SET customer_id = ''").await;
    let _sending = Sending::start(&harness, &smtp.url());
    for customer in ["bob", "eve"] {
        until("it is sent", async || all_sent(&harness, customer).await).await;
    }
    assert_eq!(smtp.mails().len(), 2, "each was sent once");
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_refused_and_blocks_nobody() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    place(&harness, 1, "ada", ADA).await;
    place(&harness, 2, "ada", ADA).await;
    place(&harness, 3, "bob", "bob@example.org").await;
    harness.sql("UPDATE emails SET attempts = -1 WHERE customer_id = 'ada' AND number = 1").await;
    let _sending = Sending::start(&harness, &smtp.url());
    until("bob's is sent", async || all_sent(&harness, "bob").await).await;
    until("the next one is sent", async || harness.list("ada").await[1].email_time.is_some()).await;
    let reasons = column(&harness, "SELECT reason FROM emails WHERE state = 'REFUSED'").await;
    assert!(reasons.len() == 1 && reasons[0].contains("attempts"), "{reasons:?}");
    assert_eq!(smtp.mails().len(), 2);
}

#[tokio::test]
async fn a_kill_between_the_sending_and_the_note_repeats_the_mail_under_the_same_id() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    smtp.moods(ADA, &[Mood::FallsSilent]);
    let sending = Sending::start(&harness, &smtp.url());
    place(&harness, 1, "ada", ADA).await;
    until("the server has it", async || smtp.mails().len() == 1).await;
    sending.kill().await;
    // Its claim is over by then.
    let harness = harness.restart(|| now_us() + 600_000_000).await;
    assert!(!all_sent(&harness, "ada").await);
    let _sending = Sending::start(&harness, &smtp.url());
    until("it is sent", async || all_sent(&harness, "ada").await).await;
    let ids: Vec<_> = smtp.mails().iter().map(|mail| mail.header("Message-ID").to_owned()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn two_senders_share_the_queue() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    let _sending = [Sending::start(&harness, &smtp.url()), Sending::start(&harness, &smtp.url())];
    for number in 1..=20 {
        place(&harness, number, ["ada", "bob", "eve"][number as usize % 3], ADA).await;
    }
    for customer in ["ada", "bob", "eve"] {
        until("all is sent", async || all_sent(&harness, customer).await).await;
    }
    assert_eq!(smtp.mails().len(), 20, "each was sent by one of them");
}

#[tokio::test]
async fn an_invoice_is_attached_to_its_mail() {
    let (harness, smtp) = (Harness::start().await, Smtp::start());
    let _sending = Sending::start(&harness, &smtp.url());
    let event = message("i-1", invoices::RENDERED, invoices::rendered("INV-000001", "o-1").encode_to_vec());
    assert_eq!(harness.invoice(&event).await, Outcome::Done);
    until("it is sent", async || all_sent(&harness, "ada").await).await;
    let mail = &smtp.mails()[0];
    assert_eq!(mail.header("Subject"), "Invoice for your order o-1");
    assert!(mail.text.contains("filename=\"INV-000001.pdf\""), "{}", mail.text);
}

#[tokio::test]
async fn mails_can_be_written_into_a_folder() {
    let (harness, folder) = (Harness::start().await, tempfile::tempdir().unwrap());
    let _sending = Sending::start(&harness, &format!("file://{}", folder.path().display()));
    place(&harness, 1, "ada", ADA).await;
    place(&harness, 2, "ada", ADA).await;
    until("all is sent", async || all_sent(&harness, "ada").await).await;
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| file.extension().is_some_and(|extension| extension == "eml")));
    assert!(std::fs::read_to_string(&files[0]).unwrap().contains("To: ada@example.org\r\n"));
}
