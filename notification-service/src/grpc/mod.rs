//! The service on the wire.

mod parse;
mod render;
mod status;

use orderflow_proto::orderflow::notification::v1 as wire;
use orderflow_proto::orderflow::notification::v1::notification_service_server::NotificationService;
use service_kit::CancellationToken;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::app::{App, Notifications, Watch};

/// What a watch sends.
type Watched = Result<wire::WatchNotificationsResponse, Status>;

/// The RPCs of notification-service.
#[derive(Debug)]
pub(crate) struct Rpc<S> {
    app: App<S>,
    stopping: CancellationToken,
}

impl<S: Notifications> Rpc<S> {
    /// Streams end when `stopping` is cancelled.
    pub(crate) fn new(app: App<S>, stopping: CancellationToken) -> Self {
        Self { app, stopping }
    }
}

#[tonic::async_trait]
impl<S: Notifications> NotificationService for Rpc<S> {
    type WatchNotificationsStream = ReceiverStream<Watched>;

    async fn list_notifications(
        &self,
        request: Request<wire::ListNotificationsRequest>,
    ) -> Result<Response<wire::ListNotificationsResponse>, Status> {
        let request = request.into_inner();
        let parse::ListNotifications { customer_id, order_id, after, limit } = parse::list_notifications(&request)?;
        // One more than asked for tells whether there is a next page.
        let found = self.app.list(&customer_id, order_id.as_deref(), after, limit + 1).await;
        let mut found = found.map_err(status::of)?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next_page_token = match found.last() {
            Some(last) if more => parse::next_page_token(&request, last.number),
            _ => String::new(),
        };
        let notifications = found.into_iter().map(render::notification).collect();
        Ok(Response::new(wire::ListNotificationsResponse { notifications, next_page_token }))
    }

    async fn acknowledge_notifications(
        &self,
        request: Request<wire::AcknowledgeNotificationsRequest>,
    ) -> Result<Response<wire::AcknowledgeNotificationsResponse>, Status> {
        let parse::Acknowledge { customer_id, number } = parse::acknowledge(request.into_inner())?;
        let number = self.app.acknowledge(customer_id, number).await.map_err(status::of)?;
        Ok(Response::new(wire::AcknowledgeNotificationsResponse { number }))
    }

    async fn get_invoice(
        &self,
        request: Request<wire::GetInvoiceRequest>,
    ) -> Result<Response<wire::GetInvoiceResponse>, Status> {
        let order_id = parse::invoice_of(&request.into_inner())?;
        let (invoice, pdf) = self.app.invoice(&order_id).await.map_err(status::of)?;
        Ok(Response::new(wire::GetInvoiceResponse { invoice: Some(render::invoice(invoice)), pdf }))
    }

    async fn list_invoices(
        &self,
        request: Request<wire::ListInvoicesRequest>,
    ) -> Result<Response<wire::ListInvoicesResponse>, Status> {
        let parse::ListInvoices { after, limit } = parse::list_invoices(&request.into_inner())?;
        // One more than asked for tells whether there is a next page.
        let mut found = self.app.invoices(after, limit + 1).await.map_err(status::of)?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next_page_token = match found.last() {
            Some(last) if more => parse::next_invoices_token(last.position),
            _ => String::new(),
        };
        let invoices = found.into_iter().map(render::invoice).collect();
        Ok(Response::new(wire::ListInvoicesResponse { invoices, next_page_token }))
    }

    async fn watch_notifications(
        &self,
        request: Request<wire::WatchNotificationsRequest>,
    ) -> Result<Response<Self::WatchNotificationsStream>, Status> {
        let parse::WatchNotifications { customer_id, from } = parse::watch_notifications(request.into_inner())?;
        let watch = match from {
            parse::From::After(number) => self.app.watch(customer_id, number),
            parse::From::Acknowledged => self.app.resume(customer_id).await,
        };
        let watch = watch.map_err(status::of)?;
        // One place for a notification, and one that is kept for the end: it has to fit in even if nobody reads.
        let (sender, receiver) = mpsc::channel(2);
        let last_word = sender.clone().reserve_owned().await.map_err(|_| Status::cancelled("nobody listens"))?;
        tokio::spawn(follow(watch, sender, last_word, self.stopping.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends what the watch tells until the service or the caller's interest ends.
async fn follow<S: Notifications>(
    mut watch: Watch<S>,
    sender: mpsc::Sender<Watched>,
    last_word: mpsc::OwnedPermit<Watched>,
    stopping: CancellationToken,
) {
    let telling = async {
        loop {
            for notification in watch.next().await.map_err(status::of)? {
                let notification = Some(render::notification(notification));
                if sender.send(Ok(wire::WatchNotificationsResponse { notification })).await.is_err() {
                    return Ok(());
                }
            }
        }
    };
    // Around the sending as well: a caller that does not read holds up nobody.
    let ended = tokio::select! {
        biased;
        () = sender.closed() => Ok(()),
        () = stopping.cancelled() => Err(Status::unavailable("the service is stopping")),
        ended = telling => ended,
    };
    if let Err(status) = ended {
        last_word.send(Err(status));
    }
}
