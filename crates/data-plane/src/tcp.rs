//! Services that speak neither HTTP nor gRPC: balanced when they are connected to, then copied byte by byte.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use synego_balance::{Failure, Slot};
use synego_identity::{ConnectError, Peer, Stream};
use synego_model::process::ServiceAddress;
use synego_model::{Protocol, Reason};
use synego_runtime::clock;

use crate::account::Account;
use crate::hop::access::Who;
use crate::hop::connection;
use crate::hop::copy::{self, Silence};
use crate::hop::record::Exchange;
use crate::hop::station::{Station, Table};
use crate::upstreams::Flight;

/// Time for a connection to the own service.
const OWN_CONNECT: Duration = Duration::from_millis(300);

/// Serves a connection to an outbound listener of one service: by what that service speaks.
pub(crate) async fn serve_outbound(station: Rc<Station>, stream: Stream, peer: Peer) {
    if let Table::Outbound(outbound) = &station.table
        && let Some(fixed) = &outbound.fixed
        && let Ok(end) = outbound.first_end(&station, fixed.as_str()).await
        && end.table.protocol == Protocol::Tcp
    {
        let mut exchange = begin(&station, end.service.account.clone(), outbound.name());
        if let Err(refusal) = outbound.may_call(&station, &end, None) {
            exchange.answered(refusal.reason.status(), Some(refusal.reason), None, clock::now());
            exchange.explained(&refusal.message);
            return exchange.finish(true);
        }
        return tunnel(&station, stream, exchange).await;
    }
    connection::serve(station, stream, peer).await;
}

/// Serves a connection to the inbound of a service that speaks bytes.
pub(crate) async fn serve_inbound(station: Rc<Station>, stream: Stream, peer: Peer) {
    let Table::Inbound(inbound) = &station.table else { return };
    let who = Who::of(&peer);
    let mut exchange = begin(&station, inbound.account.clone(), who.name().unwrap_or("-"));
    let judged = inbound.target.load().gate.judge(&station, &inbound.service, &who, None);
    if let Err(refusal) = judged {
        exchange.answered(refusal.reason.status(), Some(refusal.reason), None, clock::now());
        exchange.explained(&refusal.message);
        return exchange.finish(true);
    }
    tunnel(&station, stream, exchange).await;
}

fn begin(station: &Rc<Station>, account: Rc<Account>, caller: &str) -> Exchange {
    let mut exchange = Exchange::begin(station, Version::HTTP_11, clock::now());
    exchange.speaks_bytes(caller);
    exchange.routed(account);
    exchange
}

async fn tunnel(station: &Rc<Station>, mut client: Stream, mut exchange: Exchange) {
    exchange.is_stream();
    let work = async {
        let connected = match &station.table {
            Table::Outbound(_) => to_peer(station, &mut exchange).await,
            _ => to_own(station, &mut exchange).await,
        };
        let (mut upstream, idle, flight) = match connected {
            Ok(connected) => connected,
            Err(reason) => return exchange.answered(reason.status(), Some(reason), None, clock::now()),
        };
        exchange.answered(200, None, None, clock::now());
        let silence = Silence { both: idle, one: idle };
        // A side that has said all may wait for the other as long as it likes: so do many protocols.
        let carried = copy::two_way((&mut client, Bytes::new()), (&mut upstream, Bytes::new()), silence).await;
        drop(flight);
        exchange.tunnelled(carried.there, carried.back);
        if carried.complete {
            exchange.finish(true);
        }
    };
    tokio::select! {
        () = work => {}
        () = station.server.cut.cancelled() => {}
    }
}

type Connected = (Stream, Duration, Option<Flight>);

/// pick, send: to one instance, to another one if that takes no connection.
async fn to_peer(station: &Station, exchange: &mut Exchange) -> Result<Connected, Reason> {
    let Table::Outbound(outbound) = &station.table else { return Err(Reason::Internal) };
    let fixed = outbound.fixed.as_ref().ok_or(Reason::UnknownService)?;
    let end = outbound.first_end(station, fixed.as_str()).await.map_err(|refusal| refusal.reason)?;
    let (service, policy) = (&end.service, &end.table.policy);
    let mut tried: Vec<Slot> = Vec::new();
    loop {
        let picked = service.pick(None, &tried, clock::now(), &mut station.rng.borrow_mut());
        let mut picked =
            picked.map_err(|_| if tried.is_empty() { Reason::NoReadyEndpoint } else { Reason::ConnectFailed })?;
        exchange.tried(Some(picked.id));
        tried.push(picked.flight.slot);
        let began = clock::now();
        let made = station.pool.connect(&picked.address, &service.name, None, policy.connect).await;
        let mut rng = station.rng.borrow_mut();
        match made {
            Ok(stream) => {
                picked.flight.answered(began, clock::now(), false, &mut *rng);
                picked.flight.becomes_stream();
                return Ok((stream, policy.idle, Some(picked.flight)));
            }
            Err(_) => picked.flight.failed(Failure::Connect, &mut *rng),
        }
        if tried.len() > policy.retries as usize {
            return Err(Reason::ConnectFailed);
        }
    }
}

async fn to_own(station: &Station, exchange: &mut Exchange) -> Result<Connected, Reason> {
    let Table::Inbound(inbound) = &station.table else { return Err(Reason::Internal) };
    let take = || {
        let target = inbound.target.load_full();
        inbound.takes_requests(&target).map(|()| target)
    };
    let target = match take() {
        Err(refusal) if inbound.parks(&refusal) => inbound.parked(None, take).await,
        found => found,
    };
    let target = target.map_err(|refusal| refusal.reason)?;
    exchange.holds(&target.tenure);
    if station.server.is_draining() {
        return Err(Reason::Draining);
    }
    let limits = station.limits();
    let mut permit = inbound.admit(station, &limits).map_err(|refusal| refusal.reason)?;
    permit.becomes_stream();
    exchange.admitted(Some(permit));
    exchange.is_stream();
    exchange.tried(None);
    let address: &ServiceAddress = target.tcp.as_ref().ok_or(Reason::Starting)?;
    let made: Result<Stream, ConnectError> = station.pool.connect(address, &inbound.service, None, OWN_CONNECT).await;
    made.map(|stream| (stream, target.policy.idle, None)).map_err(|_| Reason::ConnectFailed)
}
