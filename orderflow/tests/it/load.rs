//! `orderflow load` against a stack of real processes.

use std::process::Stdio;
use std::time::Duration;

use orderflow::Part;
use orderflow::load::{Kind, Plan};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{self, Instant};

use crate::harness::{DEADLINE, Stack, program, signal_process};

const MIX: &str = "paid=6,declined=1,cancelled=1,synchronous=1";

fn plan() -> Plan {
    Plan {
        rate_per_s: 40.0,
        duration: Some(Duration::from_secs(2)),
        customers: 20,
        mix: MIX.parse().unwrap(),
        seed: 7,
        synchronous: false,
        patience: Duration::ZERO,
    }
}

async fn load(stack: &Stack, more: &[&str]) -> (bool, Value) {
    let flags = ["load", "--rate", "40", "--duration", "2s", "--customers", "20", "--mix", MIX, "--seed", "7"];
    let output = stack.command(&[&flags[..], &["--output", "json"], more].concat()).await;
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.success(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_a_load_is_told_and_the_books_balance_after_it() {
    let stack = Stack::start().await;
    let (balanced, told) = load(&stack, &[]).await;
    assert!(balanced, "{told:#}\n{:#?}", stack.output());
    let orders: Vec<_> = plan().arrivals().collect();
    let of = |kind: Kind| orders.iter().filter(|order| order.kind == kind).count();
    assert_eq!((&told["offered"], &told["accepted"]), (&orders.len().into(), &orders.len().into()), "{told:#}");
    assert_eq!((&told["refused"], &told["repeated"]), (&0.into(), &0.into()));
    let sums = &told["audit"]["sums"];
    assert_eq!(sums["accepted"], orders.len());
    assert_eq!(sums["declined"], of(Kind::Declined));
    assert_eq!(sums["paid"], of(Kind::Paid) + of(Kind::Synchronous));
    // Each was cancelled before it was paid or after.
    let given_up = sums["cancelled"].as_u64().unwrap() + sums["refunded"].as_u64().unwrap();
    assert_eq!(given_up, of(Kind::Cancelled) as u64);
    assert_eq!((&told["accept"]["count"], &told["placed_to_paid"]["count"]), (&told["accepted"], &sums["paid"]));
    assert!(told["drain_s"].is_number(), "{told:#}");

    // The seed's orders are known by now, and none is made twice.
    let (balanced, again) = load(&stack, &[]).await;
    assert!(balanced, "{again:#}");
    assert_eq!((&again["repeated"], &again["audit"]["sums"]["accepted"]), (&told["accepted"], &told["accepted"]));
    assert_eq!(again["placed_to_paid"]["count"], 0, "they were paid before: {again:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_whose_orders_wait_for_payment_ends_without_a_balance() {
    let stack = Stack::start().await;
    stack.kill(Part::PaymentService).await;
    let (balanced, told) = load(&stack, &["--wait", "0s"]).await;
    assert!(!balanced, "{told:#}");
    assert!(told["drain_s"].is_null() && told["audit"]["error"].is_string(), "{told:#}");
    // What is charged within the request is refused; everything else is accepted all the same.
    let synchronous = plan().arrivals().filter(|order| order.kind == Kind::Synchronous).count();
    assert_eq!(told["refused_reasons"]["unavailable"], synchronous, "{told:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_what_follows_the_placing_and_what_was_found_is_told() {
    let stack = Stack::start().await;
    stack.kill(Part::PaymentService).await;
    // Without payment the work is never done: it would be waited for until long after the deadline.
    let flags = ["--rate", "40", "--duration", "1s", "--mix", "paid=1", "--wait", "1h", "--output", "json"];
    let mut command = program();
    command.arg("load").args(flags).env("ORDERFLOW_DATA_DIR", stack.folder()).stdout(Stdio::piped());
    let load = command.spawn().unwrap();
    let pid = load.id().unwrap();
    stack.wait_for_queue("payment-service.order-events", |queue| queue.backlog_messages > 0).await;
    // The first one may still end the placing.
    let ended = load.wait_with_output();
    tokio::pin!(ended);
    let deadline = Instant::now() + DEADLINE;
    let output = loop {
        signal_process(pid, Signal::INT);
        if let Ok(output) = time::timeout(Duration::from_secs(2), &mut ended).await {
            break output.unwrap();
        }
        assert!(Instant::now() < deadline, "ctrl-c does not end it");
    };
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(told["accepted"].as_u64() > Some(0) && told["drain_s"].is_null(), "{told:#}");
    assert_eq!(told["audit"]["error"], "ctrl-c broke it off");
}
