//! What stands around `google.pubsub.v1` in the same API, written down from it as in `public_api`: schemas, and access
//! policies.

/// The files that the tables below are about.
pub(crate) const FILES: [&str; 5] = [
    "google/iam/v1/iam_policy.proto",
    "google/iam/v1/options.proto",
    "google/iam/v1/policy.proto",
    "google/pubsub/v1/schema.proto",
    "google/type/expr.proto",
];

/// Messages and their fields, sorted by number. A field of a oneof has the oneof's name before it.
pub(crate) const MESSAGES: &[(&str, &[&str])] = &[
    ("SetIamPolicyRequest", &["string resource = 1", "Policy policy = 2", "google.protobuf.FieldMask update_mask = 3"]),
    ("GetIamPolicyRequest", &["string resource = 1", "GetPolicyOptions options = 2"]),
    ("GetPolicyOptions", &["int32 requested_policy_version = 1"]),
    ("TestIamPermissionsRequest", &["string resource = 1", "repeated string permissions = 2"]),
    ("TestIamPermissionsResponse", &["repeated string permissions = 1"]),
    (
        "Policy",
        &[
            "int32 version = 1",
            "bytes etag = 3",
            "repeated Binding bindings = 4",
            "repeated AuditConfig audit_configs = 6",
        ],
    ),
    ("Binding", &["string role = 1", "repeated string members = 2", "google.type.Expr condition = 3"]),
    ("AuditConfig", &["string service = 1", "repeated AuditLogConfig audit_log_configs = 3"]),
    ("AuditLogConfig", &["AuditLogConfig.LogType log_type = 1", "repeated string exempted_members = 2"]),
    ("PolicyDelta", &["repeated BindingDelta binding_deltas = 1", "repeated AuditConfigDelta audit_config_deltas = 2"]),
    (
        "BindingDelta",
        &["BindingDelta.Action action = 1", "string role = 2", "string member = 3", "google.type.Expr condition = 4"],
    ),
    (
        "AuditConfigDelta",
        &[
            "AuditConfigDelta.Action action = 1",
            "string service = 2",
            "string exempted_member = 3",
            "string log_type = 4",
        ],
    ),
    ("Expr", &["string expression = 1", "string title = 2", "string description = 3", "string location = 4"]),
    (
        "Schema",
        &[
            "string name = 1",
            "Schema.Type type = 2",
            "string definition = 3",
            "string revision_id = 4",
            "google.protobuf.Timestamp revision_create_time = 6",
            "configuration: CompiledProtoSchema compiled_proto_schema = 8",
        ],
    ),
    ("CompiledProtoSchema", &["string root_message = 1", "bytes compiled_bytes = 2"]),
    ("CreateSchemaRequest", &["string parent = 1", "Schema schema = 2", "string schema_id = 3"]),
    ("GetSchemaRequest", &["string name = 1", "SchemaView view = 2"]),
    (
        "ListSchemasRequest",
        &["string parent = 1", "SchemaView view = 2", "int32 page_size = 3", "string page_token = 4"],
    ),
    ("ListSchemasResponse", &["repeated Schema schemas = 1", "string next_page_token = 2"]),
    (
        "ListSchemaRevisionsRequest",
        &["string name = 1", "SchemaView view = 2", "int32 page_size = 3", "string page_token = 4"],
    ),
    ("ListSchemaRevisionsResponse", &["repeated Schema schemas = 1", "string next_page_token = 2"]),
    ("CommitSchemaRequest", &["string name = 1", "Schema schema = 2"]),
    ("RollbackSchemaRequest", &["string name = 1", "string revision_id = 2"]),
    ("DeleteSchemaRevisionRequest", &["string name = 1", "string revision_id = 2 deprecated"]),
    ("DeleteSchemaRequest", &["string name = 1"]),
    ("ValidateSchemaRequest", &["string parent = 1", "Schema schema = 2"]),
    ("ValidateSchemaResponse", &[]),
    (
        "ValidateMessageRequest",
        &[
            "string parent = 1",
            "schema_spec: string name = 2",
            "schema_spec: Schema schema = 3",
            "bytes message = 4",
            "Encoding encoding = 5",
        ],
    ),
    ("ValidateMessageResponse", &[]),
];

/// Enums and their values.
pub(crate) const ENUMS: &[(&str, &[&str])] = &[
    ("AuditLogConfig.LogType", &["LOG_TYPE_UNSPECIFIED = 0", "ADMIN_READ = 1", "DATA_WRITE = 2", "DATA_READ = 3"]),
    ("BindingDelta.Action", &["ACTION_UNSPECIFIED = 0", "ADD = 1", "REMOVE = 2"]),
    ("AuditConfigDelta.Action", &["ACTION_UNSPECIFIED = 0", "ADD = 1", "REMOVE = 2"]),
    ("Schema.Type", &["TYPE_UNSPECIFIED = 0", "PROTOCOL_BUFFER = 1", "AVRO = 2"]),
    ("SchemaView", &["SCHEMA_VIEW_UNSPECIFIED = 0", "BASIC = 1", "FULL = 2"]),
    ("Encoding", &["ENCODING_UNSPECIFIED = 0", "JSON = 1", "BINARY = 2"]),
];

/// RPCs with their types, sorted.
pub(crate) const RPCS: [&str; 13] = [
    "IAMPolicy.GetIamPolicy: GetIamPolicyRequest -> Policy",
    "IAMPolicy.SetIamPolicy: SetIamPolicyRequest -> Policy",
    "IAMPolicy.TestIamPermissions: TestIamPermissionsRequest -> TestIamPermissionsResponse",
    "SchemaService.CommitSchema: CommitSchemaRequest -> Schema",
    "SchemaService.CreateSchema: CreateSchemaRequest -> Schema",
    "SchemaService.DeleteSchema: DeleteSchemaRequest -> google.protobuf.Empty",
    "SchemaService.DeleteSchemaRevision: DeleteSchemaRevisionRequest -> Schema",
    "SchemaService.GetSchema: GetSchemaRequest -> Schema",
    "SchemaService.ListSchemaRevisions: ListSchemaRevisionsRequest -> ListSchemaRevisionsResponse",
    "SchemaService.ListSchemas: ListSchemasRequest -> ListSchemasResponse",
    "SchemaService.RollbackSchema: RollbackSchemaRequest -> Schema",
    "SchemaService.ValidateMessage: ValidateMessageRequest -> ValidateMessageResponse",
    "SchemaService.ValidateSchema: ValidateSchemaRequest -> ValidateSchemaResponse",
];
