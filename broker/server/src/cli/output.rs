//! Writing answers: for people, or as the JSON form of the .proto messages.

use std::io::Write;
use std::sync::LazyLock;

use orderflow_proto::DESCRIPTORS;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

use super::error::Error;
use super::names::program;

/// How answers look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
}

static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).ok());

/// A message as JSON, with all its fields, also those at their default.
pub(super) fn to_json(type_name: &str, message: &impl prost::Message) -> Result<Value, Error> {
    let descriptor = POOL.as_ref().and_then(|pool| pool.get_message_by_name(type_name));
    let descriptor = descriptor.ok_or_else(|| Error::Json(format!("`{type_name}` is not declared")))?;
    let error = |error: &dyn std::fmt::Display| Error::Json(error.to_string());
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(|e| error(&e))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(|e| error(&e))
}

/// One JSON document.
pub(super) fn document(value: &Value) -> Result<(), Error> {
    line(&format!("{value:#}"))
}

/// One of many JSON documents.
pub(super) fn json_line(value: &Value) -> Result<(), Error> {
    line(&value.to_string())
}

/// What there is to say when something is done: people read the sentence, scripts an empty object.
pub(super) fn done(is_json: bool, sentence: &str) -> Result<(), Error> {
    line(if is_json { "{}" } else { sentence })
}

/// Says that there is nothing to list, and how that can be changed.
pub(super) fn none(things: &str, project: &str, command: &str) -> Result<(), Error> {
    remark(&format!("no {things} in {project}; create one with `{} {command}`", program()));
    Ok(())
}

/// Writes a line, or several.
pub(super) fn line(text: &str) -> Result<(), Error> {
    bytes(format!("{text}\n").as_bytes())
}

pub(super) fn bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::Output)
}

/// Tells something beside the answer, which stays clean for whoever reads it.
pub(super) fn remark(text: &str) {
    // Whether somebody reads it changes nothing.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
