//! payment-service over the network, with its broker and its acquirer down.

mod harness;
mod life;
mod rpc;
