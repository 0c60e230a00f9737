//! What the runner says once everything is ready.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use super::layout::Layout;
use super::stack::Program;
use crate::part::Part;

/// Where everything listens, and three lines to try next.
pub(super) fn text(layout: &Layout, program: &Program, took: Duration, page: Option<SocketAddr>) -> String {
    let mut text = format!("ready after {:.1} s, data in {}\n\n", took.as_secs_f64(), layout.data_dir().display());
    if let Some(page) = page {
        let _ = writeln!(text, "  Look, and break things:  http://{page}\n");
    }
    for (part, door) in layout.doors() {
        let _ = writeln!(text, "  {:<24}{:<22}{}", format!("{part}, any"), door.to_string(), speaks(*part));
    }
    for instance in layout.instances() {
        let _ = writeln!(text, "  {instance:<24}{:<22}{}", layout.reach(instance).to_string(), speaks(instance.part));
    }
    let order = layout.call(Part::OrderService);
    let place = r#"{"idempotency_key":"first","customer_id":"alice","lines":[{"sku":"tea","quantity":2,"unit_price":{"currency_code":"EUR","amount_minor":649}}]}"#;
    let _ = write!(
        text,
        "\nTry, in another terminal:\n\
         \n  grpcurl -plaintext -d '{place}' {order} orderflow.order.v1.OrderService/PlaceOrder\
         \n  {}\
         \n  {}\n\
         \nctrl-c stops everything. Logs: {}\n",
        program.command(if layout.is_scaled() { "kill nats" } else { "kill payment-service" }),
        program.command("status"),
        layout.data_dir().join("logs").display(),
    );
    text
}

fn speaks(part: Part) -> &'static str {
    match part {
        Part::Nats => "NATS  the broker's journal",
        Part::Postgres => "SQL   the books of the services",
        Part::Broker => "gRPC  google.pubsub.v1, orderflow.broker.v1",
        Part::Acquirer => "HTTP  POST /v1/charges",
        Part::OrderService => "gRPC  orderflow.order.v1",
        Part::PaymentService => "gRPC  orderflow.payment.v1",
        Part::NotificationService => "gRPC  orderflow.notification.v1",
        Part::InvoiceWorker => "gRPC  grpc.health.v1",
    }
}
