//! A SOCKS proxy: version 5 (RFC 1928, without authentication), 4, and 4a; CONNECT alone.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::relay::{Upstream, stream_of};
use crate::service::Conn;

const CONNECT: u8 = 1;

pub(super) fn serve(conn: Conn, upstream: &Upstream) -> io::Result<()> {
    let (ticket, client) = (conn.ticket.clone(), stream_of(&conn));
    let mut reader = BufReader::new(conn);
    let version = byte(&mut reader)?;
    let (host, port) = match version {
        5 => five(&mut reader)?,
        4 => four(&mut reader)?,
        _ => return Err(unexpected("a version that is neither 4 nor 5")),
    };
    ticket.requested(Some(&format!("{host}:{port}")), &format!("SOCKS{version}"));
    let connected = upstream.connect(&host, port);
    let reply: &[u8] = match (version, &connected) {
        (5, Ok(_)) => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        (5, Err(_)) => &[5, 4, 0, 1, 0, 0, 0, 0, 0, 0],
        (_, Ok(_)) => &[0, 90, 0, 0, 0, 0, 0, 0],
        (_, Err(_)) => &[0, 91, 0, 0, 0, 0, 0, 0],
    };
    reader.get_mut().write_all(reply)?;
    upstream.relay(&client, reader, &connected?)
}

fn five(reader: &mut BufReader<Conn>) -> io::Result<(String, u16)> {
    let methods = byte(reader)?;
    exactly(reader, usize::from(methods))?;
    reader.get_mut().write_all(&[5, 0])?;
    let request = exactly(reader, 4)?;
    if request[0] != 5 || request[1] != CONNECT {
        return Err(unexpected("a command other than CONNECT"));
    }
    let host = match request[3] {
        1 => Ipv4Addr::from(array::<4>(reader)?).to_string(),
        3 => {
            let length = byte(reader)?;
            String::from_utf8_lossy(&exactly(reader, usize::from(length))?).into_owned()
        }
        4 => Ipv6Addr::from(array::<16>(reader)?).to_string(),
        _ => return Err(unexpected("an unknown kind of address")),
    };
    Ok((host, u16::from_be_bytes(array(reader)?)))
}

fn four(reader: &mut BufReader<Conn>) -> io::Result<(String, u16)> {
    if byte(reader)? != CONNECT {
        return Err(unexpected("a command other than CONNECT"));
    }
    let port = u16::from_be_bytes(array(reader)?);
    let address = Ipv4Addr::from(array::<4>(reader)?);
    text(reader)?;
    // 4a: an address 0.0.0.x means that a name follows.
    let [a, b, c, d] = address.octets();
    let host = if [a, b, c] == [0; 3] && d != 0 { text(reader)? } else { address.to_string() };
    Ok((host, port))
}

fn text(reader: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(256).read_until(0, &mut bytes)?;
    bytes.pop();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn byte(reader: &mut impl Read) -> io::Result<u8> {
    Ok(array::<1>(reader)?[0])
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn exactly(reader: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
