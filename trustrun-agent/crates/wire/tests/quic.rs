//! Initial packets of a real QUIC client (quinn).

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Instant};

use quinn_proto::{ClientConfig, Endpoint, EndpointConfig, crypto::rustls::QuicClientConfig};
use trustrun_wire::{Outcome, quic::Initials};

/// The datagrams that quinn sends before it hears anything.
fn datagrams(host: &str, alpn: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = alpn;
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
    let now = Instant::now();
    let (_, mut connection) = endpoint.connect(now, config, "192.0.2.1:443".parse().unwrap(), host).unwrap();
    let mut sent = Vec::new();
    let mut buffer = Vec::new();
    while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
        sent.push(buffer[..transmit.size].to_vec());
        buffer.clear();
    }
    sent
}

#[test]
fn reads_a_hello_in_one_datagram() {
    let sent = datagrams("h3.example.com", vec![b"h3".to_vec()]);
    assert_eq!(sent.len(), 1);
    let Outcome::Complete(hello) = Initials::new().push(&sent[0]) else { panic!("{sent:x?}") };
    assert_eq!((hello.sni.as_deref(), hello.alpn), (Some("h3.example.com"), vec!["h3".to_string()]));
}

#[test]
fn reads_a_hello_over_several_datagrams_in_any_order() {
    let alpn = (0..60).map(|n| format!("a-protocol-with-a-rather-long-name-{n}").into_bytes()).collect();
    let sent = datagrams("h3.example.com", alpn);
    assert!(sent.len() > 1);
    for order in [sent.iter().collect::<Vec<_>>(), sent.iter().rev().collect()] {
        let mut initials = Initials::new();
        let (last, before) = order.split_last().unwrap();
        for datagram in before {
            assert_eq!(initials.push(datagram), Outcome::Incomplete);
        }
        let hello = initials.push(last).complete().unwrap();
        assert_eq!((hello.sni.as_deref(), hello.alpn.len()), (Some("h3.example.com"), 60));
    }
}
