//! Figures for Prometheus: a page of OpenMetrics text on a port of its own.

mod page;
mod requests;
mod series;

pub(crate) use page::{Page, Source};
pub(crate) use requests::{Requests, count};
