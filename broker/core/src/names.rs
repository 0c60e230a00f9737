//! Resource names by the rules of Pub/Sub, parsed once at the edge.
//!
//! The rules for an id come from the "resource names" section of the public Pub/Sub guide. Project ids are taken more
//! leniently than the public service does, as its emulators do.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// The shortest id of a topic, subscription or snapshot, in characters.
pub const ID_CHARS_MIN: usize = 3;
/// The longest id of a topic, subscription or snapshot, in characters.
pub const ID_CHARS_MAX: usize = 255;
/// The longest project id, in characters. The public service allows 30 (and domain-scoped ones a little more).
pub const PROJECT_CHARS_MAX: usize = 255;

/// What is shown in the place of the name of a topic that was deleted while it still had subscriptions.
pub const DELETED_TOPIC: &str = "_deleted-topic_";

/// A name that breaks the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The parts are not those of such a name.
    #[error("`{name}` does not have the form `{form}`")]
    Form {
        /// What was given.
        name: String,
        /// What was expected.
        form: &'static str,
    },
    /// The project id breaks the rules.
    #[error("project id `{id}` must be 1 to {PROJECT_CHARS_MAX} letters, digits, `-`, `_`, `.` or `:`")]
    Project {
        /// What was given.
        id: String,
    },
    /// The id is too short or too long.
    #[error("id `{id}` must have {ID_CHARS_MIN} to {ID_CHARS_MAX} characters")]
    Length {
        /// What was given.
        id: String,
    },
    /// The id does not start with a letter.
    #[error("id `{id}` must start with a letter")]
    Start {
        /// What was given.
        id: String,
    },
    /// The id has a character that is not allowed.
    #[error("id `{id}` must hold only letters, digits, `-`, `_`, `.`, `~`, `+` and `%`")]
    Character {
        /// What was given.
        id: String,
    },
    /// The id starts with a prefix that the public service keeps for itself.
    #[error("id `{id}` must not start with `goog`")]
    Reserved {
        /// What was given.
        id: String,
    },
}

fn check_project(id: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if id.is_empty() || id.len() > PROJECT_CHARS_MAX || !id.chars().all(allowed) {
        return Err(NameError::Project { id: id.to_owned() });
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '%');
    let id_owned = || id.to_owned();
    if !id.chars().all(allowed) {
        return Err(NameError::Character { id: id_owned() });
    }
    if !(ID_CHARS_MIN..=ID_CHARS_MAX).contains(&id.len()) {
        return Err(NameError::Length { id: id_owned() });
    }
    if !id.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(NameError::Start { id: id_owned() });
    }
    if id.starts_with("goog") {
        return Err(NameError::Reserved { id: id_owned() });
    }
    Ok(())
}

fn check(name: &str, collection: &str, form: &'static str) -> Result<(), NameError> {
    let parts: Vec<&str> = name.split('/').collect();
    let ["projects", project, found, id] = parts[..] else {
        return Err(NameError::Form { name: name.to_owned(), form });
    };
    if found != collection {
        return Err(NameError::Form { name: name.to_owned(), form });
    }
    check_project(project)?;
    check_id(id)
}

/// What the full names have in common. Order and hash are those of the text, so that maps can be searched by `&str`.
macro_rules! resource_name {
    ($(#[$doc:meta])* $name:ident, $collection:literal, $form:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The collection that names of this kind stand in.
            pub const COLLECTION: &str = $collection;

            /// The project id.
            pub fn project(&self) -> &str {
                self.0.split('/').nth(1).unwrap_or_default()
            }

            /// The last part.
            pub fn id(&self) -> &str {
                self.0.rsplit('/').next().unwrap_or_default()
            }

            /// The whole name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                check(name, $collection, $form)?;
                Ok($name(name.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

resource_name!(
    /// The name of a topic: `projects/{project}/topics/{topic}`.
    TopicName,
    "topics",
    "projects/{project}/topics/{topic}"
);

resource_name!(
    /// The name of a subscription: `projects/{project}/subscriptions/{subscription}`.
    SubscriptionName,
    "subscriptions",
    "projects/{project}/subscriptions/{subscription}"
);

resource_name!(
    /// The name of a snapshot: `projects/{project}/snapshots/{snapshot}`.
    SnapshotName,
    "snapshots",
    "projects/{project}/snapshots/{snapshot}"
);

/// The name of a project: `projects/{project}`. Projects are not created; they are the first half of other names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectName(String);

impl ProjectName {
    /// The project id.
    pub fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What all names of one kind in this project start with.
    pub(crate) fn prefix(&self, collection: &str) -> String {
        format!("{}/{collection}/", self.0)
    }
}

impl FromStr for ProjectName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let form = || NameError::Form { name: name.to_owned(), form: "projects/{project}" };
        let id = name.strip_prefix("projects/").ok_or_else(form)?;
        if id.contains('/') {
            return Err(form());
        }
        check_project(id)?;
        Ok(ProjectName(name.to_owned()))
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
