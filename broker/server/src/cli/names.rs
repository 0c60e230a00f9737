//! Short names and full ones.

use std::path::Path;

/// The full name of what is called `name`: names with a slash are full already.
pub(super) fn full(project: &str, collection: &str, name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("projects/{project}/{collection}/{name}") }
}

/// A name as people are shown it: short when it belongs to their project.
pub(super) fn shown(project: &str, name: &str) -> String {
    let within = name.strip_prefix("projects/").and_then(|rest| rest.strip_prefix(project));
    let id = within.and_then(|rest| rest.strip_prefix('/')).and_then(|rest| rest.split_once('/')).map(|(_, id)| id);
    id.unwrap_or(name).to_owned()
}

/// How this program was called, for advice that can be typed: it may carry the broker's command line as a part of its own.
pub(super) fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        None | Some("broker") => "broker".to_owned(),
        Some(other) => format!("{other} broker"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_belongs_to_the_project_and_a_full_one_stays_as_it_is() {
        assert_eq!(full("p", "topics", "orders"), "projects/p/topics/orders");
        assert_eq!(full("p", "topics", "projects/q/topics/orders"), "projects/q/topics/orders");
    }

    #[test]
    fn a_name_is_shown_short_within_its_project_only() {
        assert_eq!(shown("p", "projects/p/topics/orders"), "orders");
        assert_eq!(shown("p", "projects/pq/topics/orders"), "projects/pq/topics/orders");
        assert_eq!(shown("p", "_deleted-topic_"), "_deleted-topic_");
    }
}
