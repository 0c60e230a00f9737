//! The commands on the command line.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::json;

use super::{Error, Letter, discard, list, mend, payload, redrive, show};
use crate::terminal::say;

/// What can be done with dead letters.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// List them, the oldest first
    List {
        /// As one JSON document instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show one whole, its payload as JSON
    Show {
        /// Its id, as `list` shows it
        id: String,
    },
    /// Put a copy with another payload or other attributes in the place of one; it stays a dead letter until `redrive`
    Mend {
        /// Its id, as `list` shows it
        id: String,
        /// A file with the new payload as JSON, in the form in which `show` prints it; - reads the standard input
        #[arg(long, value_name = "FILE", required_unless_present = "attribute")]
        payload: Option<String>,
        /// An attribute to set, such as ce-type=orderflow.events.v1.OrderPlaced
        #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
        attribute: Vec<(String, String)>,
    },
    /// Send some back to the queues that they came from, and nowhere else; all when none is named
    Redrive {
        /// Their ids
        ids: Vec<String>,
    },
    /// Give one up for good
    Discard {
        /// Its id
        id: String,
    },
}

/// Does what the command line says, at the broker at `http://HOST:PORT`.
pub async fn execute(command: Command, broker: &str) -> Result<(), Error> {
    match command {
        Command::List { json: false } => say(&table(&list(broker).await?)),
        Command::List { json: true } => {
            let letters: Vec<_> = list(broker).await?.iter().map(as_json).collect();
            say(&format!("{:#}", json!({ "dead_letters": letters })));
        }
        Command::Show { id } => say(&format!("{:#}", as_json(&show(broker, &id).await?))),
        Command::Mend { id, payload, attribute } => {
            let json = payload.map(|path| read(&path)).transpose()?;
            let copy = mend(broker, &id, json.as_deref(), HashMap::from_iter(attribute)).await?;
            say(&format!("{copy} has taken its place; send it back: orderflow dead-letters redrive {copy}"));
        }
        Command::Redrive { ids } => {
            let reply = redrive(broker, ids).await?;
            say(&format!("{} sent back", reply.redriven_messages));
            if !reply.skipped.is_empty() {
                return Err(Error::Skipped(reply.skipped));
            }
        }
        Command::Discard { id } => {
            discard(broker, std::slice::from_ref(&id)).await?;
            say(&format!("{id} is gone"));
        }
    }
    Ok(())
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn read(path: &str) -> Result<String, Error> {
    let text = if path == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    text.map_err(|source| Error::File { path: path.to_owned(), source })
}

fn table(letters: &[Letter]) -> String {
    let mut text = format!("{:<20} {:<36} {:<20} {:<36} {}", "ID", "FROM", "EVENT", "ORDER", "REASON");
    for letter in letters {
        let event = letter.kind().rsplit('.').next().unwrap_or_default();
        let (order, reason) = (letter.order(), letter.reason());
        let _ = write!(text, "\n{:<20} {:<36} {event:<20} {order:<36} {reason}", letter.id(), letter.source());
    }
    text
}

fn as_json(letter: &Letter) -> serde_json::Value {
    let (payload, problem) = match payload::decode(letter.kind(), letter.data()) {
        Ok(payload) => (payload, None),
        Err(error) => (serde_json::Value::Null, Some(error.to_string())),
    };
    json!({
        "id": letter.id(),
        "time": letter.time(),
        "from": letter.source(),
        "order_id": letter.order(),
        "reason": letter.reason(),
        "attributes": letter.attributes(),
        "payload": payload,
        "payload_problem": problem,
        "payload_bytes": letter.data().len(),
    })
}
