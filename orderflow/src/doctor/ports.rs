//! The addresses on which the parts would listen, and who has them if they are taken.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use service_kit::db::redacted;

use super::Finding;
use crate::dashboard::{self, Listen};
use crate::part::Part;
use crate::up::{self, layout::Layout};

/// Characters of a command line that are shown.
const COMMAND_CHARS_MAX: usize = 80;
/// How the system writes in its tables that a socket listens.
const LISTENS: &str = "0A";

/// Tries every address that `orderflow up` would take: as configured, or the usual ones where that can't be read.
pub(super) fn check(config: Option<&up::Config>) -> Vec<Finding> {
    let wanted = match config {
        Some(config) => wanted(config),
        None => Ok(usual()),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return vec![Finding::problem("ports", error, "correct the setting, or unset it")],
    };
    let taken: Vec<Finding> = wanted.iter().filter_map(Wanted::taken).collect();
    if taken.is_empty() { vec![Finding::ok("ports", "all that the stack needs are free")] } else { taken }
}

/// An address, who would listen on it, and which variable moves it.
struct Wanted {
    who: String,
    variable: &'static str,
    address: SocketAddr,
}

const PAGE_VARIABLE: &str = "ORDERFLOW_DASHBOARD_LISTEN";

fn wanted(config: &up::Config) -> Result<Vec<Wanted>, up::Error> {
    let layout = Layout::plan(config)?;
    let mut wanted = Vec::new();
    for instance in layout.instances() {
        let variable = instance.part.listen_variable();
        let own = layout.addresses_of(instance).into_iter();
        wanted.extend(own.map(|address| Wanted { who: instance.to_string(), variable, address }));
        let page = layout.metrics_page(instance);
        wanted.extend(page.map(|address| Wanted { who: format!("{instance}'s /metrics"), variable, address }));
    }
    for (part, address) in layout.doors() {
        wanted.push(Wanted { who: part.to_string(), variable: part.listen_variable(), address: *address });
    }
    if let Listen::On(address) = config.dashboard_listen {
        wanted.push(Wanted { who: "dashboard".to_owned(), variable: PAGE_VARIABLE, address });
    }
    Ok(wanted)
}

fn usual() -> Vec<Wanted> {
    let part =
        |part: Part| Wanted { who: part.to_string(), variable: part.listen_variable(), address: part.usual_address() };
    let page = Wanted { who: "dashboard".to_owned(), variable: PAGE_VARIABLE, address: dashboard::usual_address() };
    Part::ALL.map(part).into_iter().chain([page]).collect()
}

impl Wanted {
    /// Why nobody could listen there now; nothing if that is possible.
    fn taken(&self) -> Option<Finding> {
        let Self { who, variable, address } = self;
        let error = TcpListener::bind(address).err()?;
        let elsewhere = format!("choose another address with {variable}");
        let about = format!("port {}", address.port());
        let finding = match error.kind() {
            ErrorKind::AddrInUse => {
                let holder = holder(*address).unwrap_or_else(|| "another process".to_owned());
                let says = format!("{who} can't listen on {address}: {holder} has it");
                Finding::problem(about, says, format!("end that, or {elsewhere}"))
            }
            _ => Finding::problem(about, format!("{who} can't listen on {address}: {error}"), elsewhere),
        };
        Some(finding)
    }
}

/// The process that listens where it keeps an address from others, as far as /proc tells.
fn holder(address: SocketAddr) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines());
    let in_the_way = rows.filter_map(listener).filter(|(at, _)| collide(*at, address));
    let inodes: Vec<String> = in_the_way.map(|(_, inode)| inode).collect();
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

/// Where a socket listens, and its inode, from a row of the system's table of sockets; nothing for other sockets.
fn listener(row: &str) -> Option<(SocketAddr, String)> {
    let columns: Vec<&str> = row.split_whitespace().collect();
    let [_, local, _, LISTENS, _, _, _, _, _, inode, ..] = columns[..] else { return None };
    let (ip, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip_from_hex(ip)?, port), inode.to_owned()))
}

/// The table has addresses in words of four bytes, each in the order of the machine.
fn ip_from_hex(text: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..text.len() / 8)
        .map(|word| Some(u32::from_str_radix(text.get(word * 8..word * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<_>>()?;
    match words[..] {
        [word] => Some(IpAddr::from(word)),
        [..] => Some(IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical()),
    }
}

/// Whether two can't listen at the same time: a wildcard address stands for all.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let [one_ip, other_ip] = [one, other].map(|address| address.ip().to_canonical());
    one.port() == other.port() && (one_ip == other_ip || one_ip.is_unspecified() || other_ip.is_unspecified())
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
            // A URL may hold a password.
            let told = |word: &String| if word.contains("://") { redacted(word) } else { word.clone() };
            let command = words.iter().map(told).collect::<Vec<_>>().join(" ");
            let command: String = command.trim().chars().take(COMMAND_CHARS_MAX).collect();
            format!("process {pid} (`{command}`)")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        config: up::Config,
    }

    fn wanted(who: &str, address: &str) -> Wanted {
        Wanted { who: who.to_owned(), variable: "BROKER_LISTEN", address: address.parse().unwrap() }
    }

    #[test]
    fn a_taken_port_is_told_with_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let finding = wanted("broker", &address.to_string()).taken().unwrap();
        let process = format!("process {}", std::process::id());
        assert!(finding.says.contains(&address.to_string()) && finding.says.contains(&process), "{}", finding.says);
        assert!(finding.remedy.unwrap().ends_with("BROKER_LISTEN"));
        let told = holder(address);
        assert!(told.is_some_and(|told| told.contains(&process)));
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], address.port()));
        assert_eq!(holder(elsewhere), None, "the same port of another address is free");
    }

    #[test]
    fn every_instance_its_figures_and_the_page_are_tried() {
        let config = |flags: &[&str]| Command::parse_from([&["up"], flags].concat()).config;
        let flags = ["--invoice-listen", "127.0.0.1:7000", "--instances", "invoice-worker=2", "--metrics"];
        let wanted = super::wanted(&config(&flags)).unwrap();
        let ports = |who: &str| -> Vec<u16> {
            wanted.iter().filter(|wanted| wanted.who.starts_with(who)).map(|wanted| wanted.address.port()).collect()
        };
        assert_eq!(ports("invoice-worker"), [7_000, 8_000, 7_010, 8_010]);
        assert_eq!(ports("dashboard").len(), 1);
        assert_eq!(wanted.len(), 2 * (Part::ALL.len() + 1) + 1);
        let off = super::wanted(&config(&["--dashboard-listen", "off"])).unwrap();
        assert_eq!(off.len(), Part::ALL.len());
        let none = config(&["--invoice-listen", "127.0.0.1:65530", "--instances", "invoice-worker=2"]);
        assert!(check(Some(&none))[0].says.contains("no port for invoice-worker-2"));
    }

    #[test]
    fn an_address_of_another_machine_is_told_as_such() {
        // Kept for documentation: no machine has it.
        let finding = wanted("broker", "192.0.2.1:8085").taken().unwrap();
        assert!(finding.says.starts_with("broker can't listen on 192.0.2.1:8085"), "{}", finding.says);
    }

    #[test]
    fn rows_of_the_socket_table_are_read() {
        let row = |state: &str| {
            format!("   3: 0100007F:1F95 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 4242 1 0")
        };
        assert_eq!(listener(&row("0A")), Some(("127.0.0.1:8085".parse().unwrap(), "4242".to_owned())));
        assert_eq!(listener(&row("01")), None, "a connection is no listener");
        assert_eq!(listener("  sl  local_address rem_address   st"), None);
        for (hex, ip) in [
            ("00000000", "0.0.0.0"),
            ("00000000000000000000000001000000", "::1"),
            ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ] {
            assert_eq!(ip_from_hex(hex), Some(ip.parse().unwrap()), "{hex}");
        }
        assert_eq!(["", "0100", "0100007F0100007F", "no number"].map(ip_from_hex), [None; 4]);
    }

    #[test]
    fn a_wildcard_is_in_the_way_of_every_address_and_another_address_is_not() {
        let collide = |one: &str, other: &str| collide(one.parse().unwrap(), other.parse().unwrap());
        for (one, other) in [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "127.0.0.1:1")] {
            assert!(collide(one, other) && collide(other, one), "{one} and {other}");
        }
        assert!(!collide("127.0.0.1:1", "127.0.0.1:2") && !collide("127.0.0.1:1", "127.0.0.2:1"));
    }

    #[test]
    fn a_part_of_a_stack_is_told_with_its_folder() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let part = words("orderflow --exit-with-parent order-service --database-url sqlite:///data/of/order.db");
        assert_eq!(described(7, &part), "process 7, a part of the stack on `/data/of`,");
        let broker = words("orderflow --exit-with-parent broker serve --data-dir /data/of/broker");
        assert_eq!(described(7, &broker), "process 7, a part of the stack on `/data/of`,");
        assert_eq!(described(7, &words("python3 -m http.server")), "process 7 (`python3 -m http.server`)");
        let service = words("order-service --database-url postgres://ada:secret@db/orders");
        let told = described(7, &service);
        assert_eq!(told, "process 7 (`order-service --database-url postgres://ada@db/orders`)");
    }
}
