//! The way in: what the startup packet carries, and which logins are refused.

use cdc_core::ErrorKind;
use cdc_wal::{Connector, Error, ResumePoint, StreamOptions, WalStream};

use super::wire::{FakeServer, RESUME, authentication, message, response};
use crate::fixture::within;

async fn open(connector: &Connector) -> cdc_wal::Result<WalStream> {
    let at = ResumePoint { system_id: 7, timeline: 1, slot: "s".into(), lsn: RESUME };
    within("the login", WalStream::open(connector, at, StreamOptions::new("pub"))).await
}

#[tokio::test]
async fn trap_23_the_startup_packet_pins_every_setting() {
    let server = FakeServer::start().await;
    let (_stream, wire) = server.open(StreamOptions::new("pub")).await;
    let text = String::from_utf8_lossy(&wire.startup[4..]).into_owned();
    let parts: Vec<&str> = text.split('\0').collect();
    for (name, value) in cdc_wal::PINNED_SETTINGS.iter().chain(&[("replication", "database")]) {
        let found = parts.chunks(2).find(|pair| pair[0] == *name);
        assert_eq!(found.map(|pair| pair[1]), Some(*value), "{name}");
    }
}

#[tokio::test]
async fn trap_23_a_setting_overridden_behind_our_back_is_named() {
    let mut server = FakeServer::start().await;
    server.time_zone = "Asia/Kolkata";
    let (opened, _wire) = server.try_open(StreamOptions::new("pub")).await;
    let error = opened.unwrap_err();
    assert!(matches!(&error, Error::Setting { name, .. } if name == "TimeZone"), "{error}");
}

#[tokio::test]
async fn a_password_is_not_sent_in_clear_over_an_unencrypted_connection() {
    let server = FakeServer::start().await;
    let connector = server.connector("");
    let script = async {
        let mut wire = server.accept().await;
        wire.send(&authentication(3, &[])).await;
        wire.receive().await
    };
    let (opened, sent) = tokio::join!(open(&connector), script);
    let error = opened.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }) && error.kind() == ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("unencrypted"), "{error}");
    assert_eq!(sent, None);
}

#[tokio::test]
async fn a_server_that_cannot_prove_that_it_knows_the_password_is_refused() {
    let server = FakeServer::start().await;
    let connector = server.connector("");
    let script = async {
        let mut wire = server.accept().await;
        wire.send(&authentication(10, b"SCRAM-SHA-256\0\0")).await;
        let (_, first) = wire.receive().await.unwrap();
        let text = String::from_utf8_lossy(&first).into_owned();
        let nonce = text.split("r=").nth(1).unwrap().to_owned();
        let reply = format!("r={nonce}more,s=c2FsdA==,i=4096");
        wire.send(&authentication(11, reply.as_bytes())).await;
        wire.receive().await.unwrap();
        wire.send(&authentication(12, b"v=bm90IHRoZSByaWdodCBzaWduYXR1cmUgYXQgYWxsLi4=")).await;
        wire.send(&[authentication(0, &[]), message(b'Z', b"I")].concat()).await;
        wire.receive().await
    };
    let (opened, sent) = tokio::join!(open(&connector), script);
    assert!(matches!(opened.unwrap_err(), Error::Auth { .. }));
    assert_eq!(sent, None, "no query may follow");
}

#[tokio::test]
async fn a_refused_login_is_denied_and_never_shows_the_password() {
    let server = FakeServer::start().await;
    let connector = server.connector("");
    let script = async {
        let mut wire = server.accept().await;
        let text = "password authentication failed for user \"u\"";
        wire.send(&response(b'E', "FATAL", "28P01", text)).await;
    };
    let (opened, ()) = tokio::join!(open(&connector), script);
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!format!("{error:?} {error}").contains("secret"));
}

#[tokio::test]
async fn tls_that_is_required_and_not_offered_is_an_error() {
    let server = FakeServer::start().await;
    let connector = server.connector("&sslmode=require");
    let script = async {
        let mut wire = server.accept().await;
        assert_eq!(wire.startup, [0x04, 0xD2, 0x16, 0x2F], "an SSLRequest");
        wire.send(b"N").await;
        wire.receive().await
    };
    let (opened, sent) = tokio::join!(open(&connector), script);
    assert!(matches!(opened.unwrap_err(), Error::Tls { .. }));
    assert_eq!(sent, None);
}

#[tokio::test]
async fn the_next_host_is_tried_when_one_does_not_answer() {
    let server = FakeServer::start().await;
    let endpoint = server.connector("").endpoint().unwrap();
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = dead.local_addr().unwrap().port();
    drop(dead);
    let mut two = endpoint.clone();
    two.hosts.insert(0, cdc_wal::Host { port, ..endpoint.hosts[0].clone() });
    let connector = Connector::new(two);
    let script = async {
        let mut wire = server.accept().await;
        wire.send(&response(b'E', "FATAL", "57P03", "the database system is starting up")).await;
    };
    let (opened, ()) = tokio::join!(open(&connector), script);
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Transient);
}
