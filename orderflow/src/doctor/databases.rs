//! The databases of a stack and of services that run alone, read without a change.

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
            let about = format!("database `{}`", path.display());
            findings.push(finding(about, db::inspect(&path, version_known).await));
        }
    }
    findings
}

/// Asks the servers of services that run alone. A file is theirs to make.
pub(super) async fn ask(settings: &[(&'static str, String, i64)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (service, url, version_known) in settings {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            continue;
        }
        let about = format!("database `{}` of {service}", db::redacted(url));
        findings.push(match db::inspect_server(url, *version_known).await {
            Ok(db::Inspection { version: 0, .. }) => Finding::ok(about, "it answers, and has no tables yet"),
            Err(error @ db::Error::Newer { .. }) => Finding::problem(about, error, "use that version"),
            Ok(inspection) => finding(about, Ok(inspection)),
            Err(error) => {
                let says = format!("it can't be used: {}", service_kit::status::chain(&error));
                Finding::problem(about, says, "start the server, or correct --database-url")
            }
        });
    }
    findings
}

fn finding(about: String, inspected: Result<db::Inspection, db::Error>) -> Finding {
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
