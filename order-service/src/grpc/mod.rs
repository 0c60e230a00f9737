//! The service on the wire.

mod parse;
mod render;
mod status;

use fail_points::Point;
use orderflow_proto::orderflow::order::v1 as wire;
use orderflow_proto::orderflow::order::v1::order_service_server::OrderService;
use prost::Message as _;
use service_kit::CancellationToken;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::app::{App, Orders, Watch};
use crate::peers::Peers;

/// Bytes of orders in one page at most; a page that would be longer ends early. Clients take 4 MiB by default.
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The RPCs of order-service.
#[derive(Debug)]
pub(crate) struct Rpc<S> {
    app: App<S>,
    peers: Peers,
    stopping: CancellationToken,
}

impl<S: Orders> Rpc<S> {
    /// Streams end when `stopping` is cancelled.
    pub(crate) fn new(app: App<S>, peers: Peers, stopping: CancellationToken) -> Self {
        Self { app, peers, stopping }
    }
}

#[tonic::async_trait]
impl<S: Orders> OrderService for Rpc<S> {
    type WatchOrderStream = ReceiverStream<Result<wire::WatchOrderResponse, Status>>;

    async fn place_order(
        &self,
        request: Request<wire::PlaceOrderRequest>,
    ) -> Result<Response<wire::PlaceOrderResponse>, Status> {
        let parse::PlaceOrder { new, key, fingerprint } = parse::place_order(request.into_inner())?;
        let order = self.app.place(new, key, fingerprint, &self.peers).await.map_err(status::of)?;
        fail_points::pass(Point::OrderCommitted);
        Ok(Response::new(wire::PlaceOrderResponse { order: Some(render::order(&order)) }))
    }

    async fn cancel_order(
        &self,
        request: Request<wire::CancelOrderRequest>,
    ) -> Result<Response<wire::CancelOrderResponse>, Status> {
        let id = parse::order_id(&request.into_inner().order_id)?;
        let order = self.app.cancel(id).await.map_err(status::of)?;
        Ok(Response::new(wire::CancelOrderResponse { order: Some(render::order(&order)) }))
    }

    async fn retry_payment(
        &self,
        request: Request<wire::RetryPaymentRequest>,
    ) -> Result<Response<wire::RetryPaymentResponse>, Status> {
        let (id, token) = parse::retry_payment(request.into_inner())?;
        let order = self.app.retry(id, token).await.map_err(status::of)?;
        Ok(Response::new(wire::RetryPaymentResponse { order: Some(render::order(&order)) }))
    }

    async fn get_order(
        &self,
        request: Request<wire::GetOrderRequest>,
    ) -> Result<Response<wire::GetOrderResponse>, Status> {
        let id = parse::order_id(&request.into_inner().order_id)?;
        let order = self.app.order(id).await.map_err(status::of)?;
        let (steps, history) = tokio::join!(self.app.steps(id), self.peers.history(&order));
        let steps = steps.map_err(status::of)?;
        Ok(Response::new(wire::GetOrderResponse {
            order: Some(render::order(&order)),
            timeline: render::timeline(&order, steps, history.steps),
            timeline_missing: history.missing.into_iter().map(str::to_owned).collect(),
        }))
    }

    async fn list_orders(
        &self,
        request: Request<wire::ListOrdersRequest>,
    ) -> Result<Response<wire::ListOrdersResponse>, Status> {
        let request = request.into_inner();
        let parse::ListOrders { filter, before, limit } = parse::list_orders(&request)?;
        // One more than asked for tells whether there is a next page.
        let found = self.app.list(filter, before, limit + 1).await.map_err(status::of)?;
        let mut response = wire::ListOrdersResponse::default();
        let mut page_bytes = 0;
        for (index, order) in found.iter().enumerate() {
            let rendered = render::order(order);
            page_bytes += rendered.encoded_len();
            let full = response.orders.len() == limit as usize || (index > 0 && page_bytes > PAGE_BYTES_MAX);
            if full {
                response.next_page_token = parse::next_page_token(&request, found[index - 1].id);
                break;
            }
            response.orders.push(rendered);
        }
        Ok(Response::new(response))
    }

    async fn watch_order(
        &self,
        request: Request<wire::WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let id = parse::order_id(&request.into_inner().order_id)?;
        let watch = self.app.watch(id).await.map_err(status::of)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(follow(watch, sender, self.stopping.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends what the watch tells until the order, the service or the caller's interest ends.
async fn follow<S: Orders>(
    mut watch: Watch<S>,
    sender: mpsc::Sender<Result<wire::WatchOrderResponse, Status>>,
    stopping: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            () = sender.closed() => return,
            () = stopping.cancelled() => Err(Status::unavailable("the service is stopping")),
            next = watch.next() => next.map_err(status::of),
        };
        let item = match next {
            Ok(None) => return,
            Ok(Some(order)) => Ok(wire::WatchOrderResponse { order: Some(render::order(&order)) }),
            Err(status) => Err(status),
        };
        let last = item.is_err();
        if sender.send(item).await.is_err() || last {
            return;
        }
    }
}
