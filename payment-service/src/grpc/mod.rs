//! The service on the wire.

mod charges;
mod parse;
mod render;
mod status;

use orderflow_proto::orderflow::payment::v1 as wire;
use orderflow_proto::orderflow::payment::v1::payment_service_server::PaymentService;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::app::{Acquirer, App, Payments};
use charges::Charges;

/// The RPCs of payment-service.
#[derive(Debug)]
pub(crate) struct Rpc<S, A> {
    app: App<S, A>,
    charges: Charges,
}

impl<S: Payments, A: Acquirer> Rpc<S, A> {
    /// Charges run as `tasks` of their own, so that one whose caller is gone still comes to its end.
    pub(crate) fn new(app: App<S, A>, tasks: TaskTracker) -> Self {
        Self { app, charges: Charges::new(tasks) }
    }
}

#[tonic::async_trait]
impl<S: Payments, A: Acquirer> PaymentService for Rpc<S, A> {
    async fn charge(&self, request: Request<wire::ChargeRequest>) -> Result<Response<wire::ChargeResponse>, Status> {
        let deadline = charges::deadline(request.metadata());
        let charge = parse::charge(request.into_inner())?;
        let payment = self.charges.run(self.app.clone(), charge, deadline).await?;
        Ok(Response::new(wire::ChargeResponse { payment: Some(render::payment(&payment)) }))
    }

    async fn get_payment(
        &self,
        request: Request<wire::GetPaymentRequest>,
    ) -> Result<Response<wire::GetPaymentResponse>, Status> {
        let order_id = parse::order_id(&request.into_inner().order_id)?;
        let payment = self.app.payment(order_id).await.map_err(status::of)?;
        Ok(Response::new(wire::GetPaymentResponse { payment: Some(render::payment(&payment)) }))
    }

    async fn list_payments(
        &self,
        request: Request<wire::ListPaymentsRequest>,
    ) -> Result<Response<wire::ListPaymentsResponse>, Status> {
        let request = request.into_inner();
        let parse::ListPayments { status, before, limit } = parse::list_payments(&request)?;
        // One more than asked for tells whether there is a next page.
        let mut found = self.app.list(status, before, limit + 1).await.map_err(status::of)?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next_page_token = match found.last() {
            Some(last) if more => parse::next_page_token(&request, last),
            _ => String::new(),
        };
        let payments = found.iter().map(render::payment).collect();
        Ok(Response::new(wire::ListPaymentsResponse { payments, next_page_token }))
    }
}
