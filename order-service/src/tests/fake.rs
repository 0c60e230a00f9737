//! payment-service and notification-service as an order needs them, in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orderflow_proto::orderflow::notification::v1 as notification;
use orderflow_proto::orderflow::notification::v1::notification_service_server::{
    NotificationService, NotificationServiceServer,
};
use orderflow_proto::orderflow::payment::v1 as payment;
use orderflow_proto::orderflow::payment::v1::payment_service_server::{PaymentService, PaymentServiceServer};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// How the fake answers a charge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Capture,
    Decline,
    /// Charges another amount than asked for.
    Cheat,
    /// Answers with the acquirer's silence.
    Unavailable,
    /// Says that the order was cancelled.
    Tombstone,
    /// Never answers.
    Hang,
    /// Answers only once it is in another mood.
    Hold,
    /// Charges, and does not say so the first time.
    LoseFirstReply,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) mood: Mood,
    /// Each charge call.
    pub(super) calls: Vec<payment::ChargeRequest>,
    /// Whether each of them came with a deadline.
    pub(super) deadlines: Vec<bool>,
    /// What GetPayment answers.
    pub(super) payments: HashMap<String, payment::Payment>,
    /// What ListNotifications answers, whoever asks.
    pub(super) notifications: Vec<notification::Notification>,
}

/// Both services at one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
}

impl Fake {
    /// Starts it, and gives its address.
    pub(super) async fn start(mood: Mood) -> (Self, String) {
        let fake = Self::default();
        fake.with(|state| state.mood = mood);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(PaymentServiceServer::new(fake.clone()))
            .add_service(NotificationServiceServer::new(fake.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(server);
        (fake, url)
    }

    async fn other_mood(&self) -> Mood {
        loop {
            let mood = self.with(|state| state.mood);
            if mood != Mood::Hold {
                return mood;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }
}

#[tonic::async_trait]
impl PaymentService for Fake {
    async fn charge(
        &self,
        request: Request<payment::ChargeRequest>,
    ) -> Result<Response<payment::ChargeResponse>, Status> {
        let with_deadline = request.metadata().contains_key("grpc-timeout");
        let request = request.into_inner();
        let (mood, calls) = self.with(|state| {
            state.calls.push(request.clone());
            state.deadlines.push(with_deadline);
            (state.mood, state.calls.len())
        });
        let mut payment = payment::Payment {
            order_id: request.order_id,
            amount: request.amount,
            attempt: request.attempt,
            status: payment::PaymentStatus::Captured.into(),
            charge_id: "ch_1".to_owned(),
            ..Default::default()
        };
        let mood = match mood {
            Mood::Hold => self.other_mood().await,
            mood => mood,
        };
        match mood {
            Mood::Capture | Mood::Hold => {}
            Mood::Decline => {
                payment.set_status(payment::PaymentStatus::Declined);
                payment.decline_reason = "stolen_card".to_owned();
            }
            Mood::Cheat => payment.amount.as_mut().unwrap().amount_minor += 1,
            Mood::Unavailable => return Err(Status::unavailable("the acquirer does not answer")),
            Mood::Tombstone => return Err(Status::failed_precondition("the order was cancelled")),
            Mood::Hang => std::future::pending().await,
            Mood::LoseFirstReply if calls == 1 => return Err(Status::unknown("the connection is gone")),
            Mood::LoseFirstReply => {}
        }
        Ok(Response::new(payment::ChargeResponse { payment: Some(payment) }))
    }

    async fn get_payment(
        &self,
        request: Request<payment::GetPaymentRequest>,
    ) -> Result<Response<payment::GetPaymentResponse>, Status> {
        let found = self.with(|state| state.payments.get(&request.into_inner().order_id).cloned());
        let payment = Some(found.ok_or_else(|| Status::not_found("nobody has tried to charge it yet"))?);
        Ok(Response::new(payment::GetPaymentResponse { payment }))
    }

    async fn list_payments(
        &self,
        _: Request<payment::ListPaymentsRequest>,
    ) -> Result<Response<payment::ListPaymentsResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }
}

#[tonic::async_trait]
impl NotificationService for Fake {
    type WatchNotificationsStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<notification::WatchNotificationsResponse, Status>> + Send>>;

    async fn list_notifications(
        &self,
        _: Request<notification::ListNotificationsRequest>,
    ) -> Result<Response<notification::ListNotificationsResponse>, Status> {
        let notifications = self.with(|state| state.notifications.clone());
        Ok(Response::new(notification::ListNotificationsResponse { notifications, ..Default::default() }))
    }

    async fn watch_notifications(
        &self,
        _: Request<notification::WatchNotificationsRequest>,
    ) -> Result<Response<Self::WatchNotificationsStream>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn acknowledge_notifications(
        &self,
        _: Request<notification::AcknowledgeNotificationsRequest>,
    ) -> Result<Response<notification::AcknowledgeNotificationsResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn get_invoice(
        &self,
        _: Request<notification::GetInvoiceRequest>,
    ) -> Result<Response<notification::GetInvoiceResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn list_invoices(
        &self,
        _: Request<notification::ListInvoicesRequest>,
    ) -> Result<Response<notification::ListInvoicesResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }
}
