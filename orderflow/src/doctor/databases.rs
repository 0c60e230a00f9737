//! The databases of a stack, read without a change.

use std::path::Path;

use service_kit::db;

use super::Finding;
use crate::acquirer;

/// Every database of a stack: its name, which is that of its file, and the newest tables that this program knows.
const DATABASES: [(&str, i64); 4] = [
    ("order", order_service::SCHEMA_VERSION),
    ("payment", payment_service::SCHEMA_VERSION),
    ("notification", notification_service::SCHEMA_VERSION),
    ("acquirer", acquirer::SCHEMA_VERSION),
];

/// Looks at the databases that are there.
pub(super) async fn check(data_dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, version_known) in DATABASES {
        let path = data_dir.join(format!("{name}.db"));
        if path.exists() {
            findings.push(finding(&path, db::inspect(&path, version_known).await));
        }
    }
    findings
}

fn finding(path: &Path, inspected: Result<db::Inspection, db::Error>) -> Finding {
    let about = format!("database `{}`", path.display());
    let restore = "restore it from a backup, or begin anew with another folder";
    match inspected {
        Ok(db::Inspection { damage: Some(damage), .. }) => {
            Finding::problem(about, format!("it is damaged: {damage}"), restore)
        }
        Ok(db::Inspection { version, .. }) => {
            Finding::ok(about, format!("it is sound, with tables of version {version}"))
        }
        Err(error @ db::Error::Newer { .. }) => {
            Finding::problem(about, error, "use that version, or another folder with --data-dir (ORDERFLOW_DATA_DIR)")
        }
        Err(error @ db::Error::TooLarge { .. }) => {
            Finding::warning(about, format!("it was not read: {error}"), "start the stack once, and stop it")
        }
        Err(error) => {
            Finding::problem(about, format!("it can't be read: {}", service_kit::status::chain(&error)), restore)
        }
    }
}
