//! The declarations below `google` against the public API: a wrong number would drop what a client sends.

use std::collections::BTreeMap;

use orderflow_proto::DESCRIPTORS;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::public_api::{ENUMS, MESSAGES, RPCS};
use crate::public_api_around as around;

const PUBSUB: [&str; 1] = ["google/pubsub/v1/pubsub.proto"];

#[test]
fn messages_have_the_fields_of_the_public_api() {
    assert_same(&all(&PUBSUB, messages), MESSAGES);
    assert_same(&all(&around::FILES, messages), around::MESSAGES);
}

#[test]
fn enums_have_the_values_of_the_public_api() {
    assert_same(&all(&PUBSUB, enums), ENUMS);
    assert_same(&all(&around::FILES, enums), around::ENUMS);
}

#[test]
fn rpcs_have_the_types_and_streams_of_the_public_api() {
    assert_eq!(rpcs(&PUBSUB), RPCS);
    assert_eq!(rpcs(&around::FILES), around::RPCS);
}

fn rpcs(names: &[&str]) -> Vec<String> {
    let stream = |streams| if streams { "stream " } else { "" };
    let mut declared: Vec<String> = files(names)
        .iter()
        .flat_map(|file| &file.service)
        .flat_map(|service| service.method.iter().map(move |method| (service.name(), method)))
        .map(|(service, method)| {
            let from = format!("{}{}", stream(method.client_streaming()), short(method.input_type()));
            let to = format!("{}{}", stream(method.server_streaming()), short(method.output_type()));
            format!("{service}.{}: {from} -> {to}", method.name())
        })
        .collect();
    declared.sort();
    declared
}

fn files(names: &[&str]) -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let found: Vec<_> = set.file.into_iter().filter(|file| names.contains(&file.name())).collect();
    assert_eq!(found.len(), names.len());
    found
}

fn all<T>(names: &[&str], of: impl Fn(&FileDescriptorProto) -> BTreeMap<String, T>) -> BTreeMap<String, T> {
    files(names).iter().flat_map(of).collect()
}

/// Type by type, so that a failure shows the one that differs.
fn assert_same(declared: &BTreeMap<String, Vec<String>>, expected: &[(&str, &[&str])]) {
    for (name, members) in expected {
        assert_eq!(declared.get(*name).unwrap_or_else(|| panic!("`{name}` is missing")), members, "{name}");
    }
    assert_eq!(declared.len(), expected.len(), "the public API does not know all of these");
}

/// Every message of a file by its name within the package, with its fields in the notation of the table.
fn messages(file: &FileDescriptorProto) -> BTreeMap<String, Vec<String>> {
    let fields = |message: &DescriptorProto| {
        let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        fields.into_iter().map(|field| describe(message, field)).collect()
    };
    nested_messages(file).into_iter().map(|(name, message)| (name, fields(message))).collect()
}

/// Every enum of a file by its name within the package, with its values in the notation of the table.
fn enums(file: &FileDescriptorProto) -> BTreeMap<String, Vec<String>> {
    let values = |declared: &EnumDescriptorProto| {
        declared.value.iter().map(|value| format!("{} = {}", value.name(), value.number())).collect()
    };
    let top = file.enum_type.iter().map(|declared| (declared.name().to_owned(), values(declared)));
    let nested = nested_messages(file).into_iter().flat_map(|(name, message)| {
        message.enum_type.iter().map(move |declared| (format!("{name}.{}", declared.name()), values(declared)))
    });
    top.chain(nested).collect()
}

/// Every message of the file, those inside others included, by its name within the package.
fn nested_messages(file: &FileDescriptorProto) -> Vec<(String, &DescriptorProto)> {
    let mut found = Vec::new();
    let mut open: Vec<(String, &DescriptorProto)> =
        file.message_type.iter().map(|message| (message.name().to_owned(), message)).collect();
    while let Some((name, message)) = open.pop() {
        for nested in message.nested_type.iter().filter(|nested| !is_map_entry(nested)) {
            open.push((format!("{name}.{}", nested.name()), nested));
        }
        found.push((name, message));
    }
    found
}

fn describe(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        is_map_entry(nested) && field.type_name().ends_with(&format!(".{}.{}", message.name(), nested.name()))
    });
    let label = match field.oneof_index {
        _ if entry.is_some() => String::new(),
        _ if field.label() == Label::Repeated => "repeated ".to_owned(),
        _ if field.proto3_optional() => "optional ".to_owned(),
        Some(index) => format!("{}: ", message.oneof_decl[usize::try_from(index).unwrap()].name()),
        None => String::new(),
    };
    let kind = match entry {
        Some(entry) => format!("map<{}, {}>", kind(&entry.field[0]), kind(&entry.field[1])),
        None => kind(field),
    };
    let deprecated =
        if field.options.as_ref().is_some_and(|options| options.deprecated()) { " deprecated" } else { "" };
    format!("{label}{kind} {} = {}{deprecated}", field.name(), field.number())
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn kind(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()),
        // `TYPE_INT32` is written `int32`.
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

/// A type as the package itself would write it.
fn short(type_name: &str) -> String {
    let name = type_name.trim_start_matches('.');
    let own = name.strip_prefix("google.pubsub.v1.").or_else(|| name.strip_prefix("google.iam.v1."));
    own.unwrap_or(name).to_owned()
}
