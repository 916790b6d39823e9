//! The table of `docs/protocol.md`: for each cell what does not work in it, directly and through the bridge alike. What a
//! client does with no server at all is named once in its row, and what a server does for nobody once in its column.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use super::matrix::{CLIENTS, Cell, OPERATIONS, SERVERS, Sdk, Transport};

/// What begins the table of each transport.
const HEADINGS: [(Transport, &str); 2] = [
    (Transport::Stdio, "| client \\ server on stdio | has no |"),
    (Transport::Http, "| client \\ server over HTTP | has no |"),
];

/// Whose row names what a server has not.
const HAS_NO: &str = "has no";

/// A cell in which everything else works.
const ALL: &str = "all";

/// What does not work, by transport, client and server.
pub(super) type Table = BTreeMap<(Transport, &'static str, &'static str), BTreeSet<&'static str>>;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md")
}

/// What does not work in this cell.
pub(super) fn missing<'a>(table: &'a Table, cell: &Cell) -> &'a BTreeSet<&'static str> {
    &table[&(cell.transport, cell.client.name, cell.server.name)]
}

/// The table as it is written, with every row and column.
pub(super) fn of_the_documentation() -> Table {
    let text = fs::read_to_string(path()).expect("docs/protocol.md");
    let mut table = Table::new();
    for (transport, heading) in HEADINGS {
        let (_, after) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
        let mut lines = after.lines();
        let servers: Vec<_> = cells(lines.next().expect("the heading's own")).collect();
        assert_eq!(servers, SERVERS.map(|sdk| sdk.name), "the columns of {heading}");
        let rows: Vec<Vec<_>> =
            lines.skip(1).take_while(|line| line.starts_with('|')).map(|line| cells(line).collect()).collect();
        let (of_servers, of_clients) = rows.split_last().expect("rows");
        assert_eq!(of_servers[0], HAS_NO, "the last row of {heading}");
        assert_eq!(of_clients.iter().map(|row| row[0]).collect::<Vec<_>>(), CLIENTS.map(|sdk| sdk.name));
        for (client, row) in CLIENTS.iter().zip(of_clients) {
            for (column, server) in SERVERS.iter().enumerate() {
                let named = [row[1], of_servers[column + 2], row[column + 2]].into_iter().flat_map(operations);
                table.insert((transport, client.name, server.name), named.collect());
            }
        }
    }
    table
}

/// The cells of a line that begins with a bar, or with what is after one.
fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.trim().trim_start_matches('|').trim_end_matches('|').split('|').map(str::trim)
}

/// The operations that a cell names.
fn operations(cell: &str) -> Vec<&'static str> {
    let find = |name: &str| {
        let known = OPERATIONS.into_iter().find(|operation| *operation == name);
        known.unwrap_or_else(|| panic!("{name:?} in the table is no operation"))
    };
    cell.split(", ").filter(|name| !name.is_empty() && *name != ALL).map(find).collect()
}

/// Writes the table in the place of the one that is written.
pub(super) fn write(table: &Table) {
    let mut text = fs::read_to_string(path()).expect("docs/protocol.md");
    for (transport, heading) in HEADINGS {
        let (before, after) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
        let length: usize = after.split_inclusive('\n').take_while(|line| line.contains('|')).map(str::len).sum();
        text = format!("{before}{heading}{}{}", written(table, transport), &after[length..]);
    }
    fs::write(path(), text).expect("docs/protocol.md can be written");
}

fn written(table: &Table, transport: Transport) -> String {
    let of = |client: &Sdk, server: &Sdk| &table[&(transport, client.name, server.name)];
    let common = |mut cells: Vec<&BTreeSet<&'static str>>| {
        let first = cells.pop().cloned().unwrap_or_default();
        cells.into_iter().fold(first, |common, cell| &common & cell)
    };
    let of_client = |client| common(SERVERS.iter().map(|server| of(client, server)).collect());
    // What a client lacks by itself says nothing of its server.
    let of_server = |server| {
        let operations = OPERATIONS.into_iter().filter(|operation| {
            let able: Vec<_> = CLIENTS.iter().filter(|client| !of_client(client).contains(operation)).collect();
            !able.is_empty() && able.iter().all(|client| of(client, server).contains(operation))
        });
        operations.collect::<BTreeSet<_>>()
    };
    let named = |missing: &BTreeSet<&str>, otherwise| {
        let named: Vec<_> = OPERATIONS.into_iter().filter(|operation| missing.contains(operation)).collect();
        if named.is_empty() { String::from(otherwise) } else { named.join(", ") }
    };
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = format!(" {} |\n|{}\n", SERVERS.map(|sdk| sdk.name).join(" | "), "---|".repeat(SERVERS.len() + 2));
    for client in &CLIENTS {
        let own = of_client(client);
        let rest = |server| &(of(client, server) - &own) - &of_server(server);
        let cells = SERVERS.iter().map(|server| named(&rest(server), ALL));
        text += &line([client.name.to_owned(), named(&own, "")].into_iter().chain(cells).collect());
    }
    let cells = SERVERS.iter().map(|server| named(&of_server(server), ""));
    text + &line([HAS_NO.to_owned(), String::new()].into_iter().chain(cells).collect())
}
