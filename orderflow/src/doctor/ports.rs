//! The addresses on which the parts would listen, and who has them if they are taken.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::Finding;
use crate::dashboard::{self, Listen};
use crate::part::Part;
use crate::up;

/// Characters of a command line that are shown.
const COMMAND_CHARS_MAX: usize = 80;
/// How the system writes in its tables that a socket listens.
const LISTENS: &str = "0A";

/// Tries every address that `orderflow up` would take.
pub(super) fn check(config: Option<&up::Config>) -> Vec<Finding> {
    let mut wanted: Vec<(&str, &str, SocketAddr)> = Part::ALL
        .into_iter()
        .map(|part| (part.name(), part.listen_variable(), config.map_or(part.usual_address(), |c| c.listen(part))))
        .collect();
    match config.map(|config| &config.dashboard_listen) {
        Some(Listen::Off) => {}
        Some(Listen::On(address)) => wanted.push(("dashboard", "ORDERFLOW_DASHBOARD_LISTEN", *address)),
        None => wanted.push(("dashboard", "ORDERFLOW_DASHBOARD_LISTEN", dashboard::usual_address())),
    }
    let taken: Vec<Finding> = wanted.iter().filter_map(|(part, variable, at)| taken(part, variable, *at)).collect();
    if taken.is_empty() { vec![Finding::ok("ports", "all that the stack needs are free")] } else { taken }
}

fn taken(part: &str, variable: &str, address: SocketAddr) -> Option<Finding> {
    let error = TcpListener::bind(address).err()?;
    let elsewhere = format!("choose another address with {variable}");
    let about = format!("port {}", address.port());
    let finding = match error.kind() {
        ErrorKind::AddrInUse => {
            let holder = holder(address.port()).unwrap_or_else(|| "another process".to_owned());
            let says = format!("{part} can't listen on {address}: {holder} has it");
            Finding::problem(about, says, format!("end that, or {elsewhere}"))
        }
        _ => Finding::problem(about, format!("{part} can't listen on {address}: {error}"), elsewhere),
    };
    Some(finding)
}

/// The process that listens on a port, as far as /proc tells.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inodes: Vec<String> =
        tables.iter().flat_map(|table| table.lines()).filter_map(|row| inode(row, port)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.into_iter().find(|pid| {
        let sockets = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = sockets.filter_map(|socket| fs::read_link(socket.path()).ok());
        targets.any(|target| inodes.iter().any(|inode| target.as_os_str() == format!("socket:[{inode}]").as_str()))
    })?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> =
        command.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    Some(described(pid, &words))
}

/// The inode of a socket that listens on the port, from a row of the system's table of sockets.
fn inode(row: &str, port: u16) -> Option<String> {
    let columns: Vec<&str> = row.split_whitespace().collect();
    let [_, local, _, state, _, _, _, _, _, inode, ..] = columns[..] else { return None };
    let (_, local_port) = local.rsplit_once(':')?;
    (state == LISTENS && u16::from_str_radix(local_port, 16) == Ok(port)).then(|| inode.to_owned())
}

/// Which process it is, and of which stack if it is a part of one.
fn described(pid: u32, words: &[String]) -> String {
    let after = |flag: &str| words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1));
    let database = after("--database-url").and_then(|url| url.strip_prefix("sqlite://"));
    let file = database.or(after("--data-dir").map(String::as_str));
    let folder = file.and_then(|file| Path::new(file).parent());
    match folder.filter(|_| words.iter().any(|word| word == "--exit-with-parent")) {
        Some(folder) => format!("process {pid}, a part of the stack on `{}`,", folder.display()),
        None => {
            let command: String = words.join(" ").trim().chars().take(COMMAND_CHARS_MAX).collect();
            format!("process {pid} (`{command}`)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let finding = taken("broker", "BROKER_LISTEN", address).unwrap();
        let process = format!("process {}", std::process::id());
        assert!(finding.says.contains(&address.to_string()) && finding.says.contains(&process), "{}", finding.says);
        assert!(finding.remedy.unwrap().ends_with("BROKER_LISTEN"));
        let told = holder(address.port());
        assert!(told.is_some_and(|told| told.contains(&process)));
    }

    #[test]
    fn an_address_of_another_machine_is_told_as_such() {
        // Kept for documentation: no machine has it.
        let finding = taken("broker", "BROKER_LISTEN", "192.0.2.1:8085".parse().unwrap()).unwrap();
        assert!(finding.says.starts_with("broker can't listen on 192.0.2.1:8085"), "{}", finding.says);
    }

    #[test]
    fn rows_of_the_socket_table_are_read() {
        let row = |state: &str| {
            format!("   3: 0100007F:1F95 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 4242 1 0")
        };
        assert_eq!(inode(&row("0A"), 8_085), Some("4242".to_owned()));
        assert_eq!(inode(&row("0A"), 8_086), None);
        assert_eq!(inode(&row("01"), 8_085), None, "a connection is no listener");
        assert_eq!(inode("  sl  local_address rem_address   st", 8_085), None);
    }

    #[test]
    fn a_part_of_a_stack_is_told_with_its_folder() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let part = words("orderflow --exit-with-parent order-service --database-url sqlite:///data/of/order.db");
        assert_eq!(described(7, &part), "process 7, a part of the stack on `/data/of`,");
        let broker = words("orderflow --exit-with-parent broker serve --data-dir /data/of/broker");
        assert_eq!(described(7, &broker), "process 7, a part of the stack on `/data/of`,");
        assert_eq!(described(7, &words("python3 -m http.server")), "process 7 (`python3 -m http.server`)");
    }
}
