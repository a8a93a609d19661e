//! Runs a command in the standard lab, then says what arrived and what was asked:
//! `sudo cargo run -p trustrun-lab --example lab -- curl https://api.allowed.test/`

use std::process::ExitCode;
use std::time::Duration;

use trustrun_lab::Lab;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: lab COMMAND [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let lab = match Lab::start() {
        Ok(lab) => lab,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(125);
        }
    };
    let status = lab.command(&program).args(arguments).status();
    lab.settle(Duration::from_secs(2));
    for query in lab.dns().queries() {
        eprintln!("asked   {} {} over {:?} at {}", query.kind, query.asked, query.transport, query.to);
    }
    for arrival in lab.arrived() {
        let (service, local, bytes) = (arrival.service, arrival.local, arrival.bytes);
        eprintln!("arrived {service:?} at {local}, {bytes} bytes, name {:?}, host {:?}", arrival.sni, arrival.host);
    }
    match status {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(e) => {
            eprintln!("{}: {e}", program.to_string_lossy());
            ExitCode::from(127)
        }
    }
}
