//! Makes connections: TCP, and TLS by the system's OpenSSL, which libssh2 uses as well.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use openssl::ssl::{SslConnector, SslMethod};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::body::Outgoing;
use super::errors::Problem;
use super::proxy::Proxy;
use crate::error::{Error, Kind, Result};
use crate::printable;
use crate::storage::bucket::Endpoint;

/// Makes the TLS configuration: the system's authorities, or the ones in a file.
pub fn tls(authorities: Option<&Path>) -> Result<SslConnector> {
    let failed = |e: openssl::error::ErrorStack| Error::failed(format!("cannot prepare TLS: {e}"));
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(failed)?;
    if let Some(file) = authorities {
        let unusable = |why: &str| {
            let text =
                format!("cannot read the certificates in {}: {why}", printable::message(&file.display().to_string()));
            Error::new(Kind::Usage, text).hint("AWS_CA_BUNDLE names a file of certificates in PEM format")
        };
        std::fs::File::open(file).map_err(|e| unusable(&e.to_string()))?;
        builder.set_ca_file(file).map_err(|_| unusable("there are none, or they are damaged"))?;
    } else {
        // An OpenSSL that was built from source does not know where this system keeps them.
        let found = openssl_probe::probe();
        if let Some(file) = found.cert_file {
            let _ = builder.load_verify_locations(Some(&file), found.cert_dir.first().map(|dir| &**dir));
        }
    }
    Ok(builder.build())
}

/// Connects to a server, or to the proxy before it. With TLS it is a tunnel to the server.
pub async fn connect(
    to: &Endpoint,
    via: Option<&Proxy>,
    tls: &SslConnector,
    timeout: Duration,
) -> std::result::Result<SendRequest<Outgoing>, Problem> {
    let unreachable = |why: String| Problem::Unreachable(format!("cannot reach {}: {why}", to.authority()));
    match tokio::time::timeout(timeout, handshakes(to, via, tls)).await {
        Ok(Err(Problem::Unreachable(why))) => Err(unreachable(why)),
        Ok(done) => done,
        Err(_) => Err(unreachable(format!("no connection within {} s", timeout.as_secs()))),
    }
}

async fn handshakes(
    to: &Endpoint,
    via: Option<&Proxy>,
    tls: &SslConnector,
) -> std::result::Result<SendRequest<Outgoing>, Problem> {
    let failed = |e: &dyn std::fmt::Display| Problem::Unreachable(printable::excerpt(e.to_string().as_bytes()));
    let next = via.map_or(to, |proxy| &proxy.endpoint);
    let mut stream = TcpStream::connect((&*next.host, next.port())).await.map_err(|e| match via {
        Some(proxy) => failed(&format!("the proxy {}: {e}", proxy.endpoint.authority())),
        None => failed(&e),
    })?;
    let _ = stream.set_nodelay(true);
    if !to.tls {
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        tokio::spawn(connection);
        return Ok(requests);
    }
    if let Some(proxy) = via {
        proxy.tunnel(&mut stream, to).await?;
    }
    let session = tls.configure().and_then(|session| session.into_ssl(&to.host)).map_err(|e| failed(&e))?;
    let mut stream = SslStream::new(session, stream).map_err(|e| failed(&e))?;
    if let Err(e) = Pin::new(&mut stream).connect().await {
        let verified = stream.ssl().verify_result();
        if verified != openssl::x509::X509VerifyResult::OK {
            return Err(Problem::Certificate(format!("{}: {}", to.authority(), verified.error_string())));
        }
        let text = e.to_string();
        let plain = text.contains("wrong version number") || text.contains("packet length too long");
        return Err(if plain {
            Problem::Certificate(format!("{} speaks no TLS", to.authority()))
        } else {
            failed(&text)
        });
    }
    let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    tokio::spawn(connection);
    Ok(requests)
}
