//! Compiles the .proto files below this folder with protox, so that nobody needs protoc.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

/// What is compiled; files that these import need no entry.
const FILES: [&str; 9] = [
    "google/iam/v1/iam_policy.proto",
    "google/pubsub/v1/pubsub.proto",
    "orderflow/broker/v1/broker.proto",
    "orderflow/events/v1/events.proto",
    "orderflow/notification/v1/notification.proto",
    "orderflow/order/v1/order.proto",
    "orderflow/payment/v1/payment.proto",
    "orderflow/type/v1/checkout.proto",
    "orderflow/type/v1/money.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for folder in ["google", "orderflow"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    // Server reflection serves this set. The comments stay in, so that `grpcurl describe` explains what it shows.
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // A body is a view into the buffer that the request arrived in: publishing does not copy it.
        .bytes(".google.pubsub.v1.PubsubMessage.data")
        .compile_fds(descriptors)?;
    Ok(())
}
