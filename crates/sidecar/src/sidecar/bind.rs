//! A sidecar is built from the leaves up, with every port taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use synego_control_plane::attach::{AttachConfig, AttachServer};
use synego_control_plane::lines::JournalLines;
use synego_control_plane::uplink::{LogLevel, Uplink, UplinkConfig, UplinkHandle};
use synego_data_plane::{
    CallBook, DenialBook, Hop, InboundConfig, InboundTarget, LoadMeter, Parking, Permits, Tenure, snapshot_channel,
};
use synego_identity::{Acceptor, Admit, Connector};
use synego_model::{InstanceId, Limits, MeshName, Snapshot};
use synego_runtime::Readiness;
use synego_runtime::admin::{self, BindAddr};
use synego_supervise::OutputSink;
use tokio::sync::watch;

use super::{Shared, Sidecar, peers};
use crate::announce;
use crate::config::SidecarConfig;
use crate::generation::{Generation, Pids};
use crate::instance::View;
use crate::left::Left;
use crate::orders::Orders;
use crate::outbound::Outbound;
use crate::output::{self, LevelOf, Output};
use crate::report::Sources;
use crate::sockets::Sockets;

/// How often the masters are told, at least.
const REPORT_EVERY: Duration = Duration::from_secs(1);

impl Sidecar {
    /// Takes the ports and builds all parts; the inbound refuses requests until [`Self::serve`].
    ///
    /// - `output`: takes the lines of the process.
    ///
    /// # Errors
    /// A port or socket that cannot be taken, with its name.
    pub async fn bind(config: SidecarConfig, shared: Shared, output: OutputSink) -> anyhow::Result<Self> {
        anyhow::ensure!(
            config.credential.is_some() || !config.mtls,
            "{} has no certificate: enrol it first, or say `mtls: off`",
            config.instance
        );
        let id = InstanceId::new(&config.instance, &config.node);
        let name: Arc<str> = id.as_str().into();
        let (snapshots, snapshot) = snapshot_channel(Snapshot::empty());
        let (calls, denials) = (CallBook::default(), DenialBook::default());
        let permits: Arc<ArcSwap<Permits>> = Arc::default();
        let meter = LoadMeter::new(shared.workers.count());
        let left = Left::of(&id);
        let drained = left.as_ref().is_some_and(|left| left.drained);
        let number = left.as_ref().map_or(0, |left| left.number);
        let sockets = Sockets::new(&config.runtime_dir, &config.instance, config.process.is_some())
            .with_context(|| format!("the folder of the sockets of {}", config.instance))?;
        // A process that was left listens where it was told to.
        let address = match left.as_ref().filter(|_| config.process.is_some()).and_then(Left::address) {
            Some(address) => address,
            None => sockets.place(&config.listens, number).context("no free port for the process")?,
        };

        let first = Generation {
            number,
            address: address.clone(),
            // Its variables and its process follow when it is started.
            env: BTreeMap::new(),
            cwd: config.process.as_ref().map(|process| process.cwd.clone()).unwrap_or_default(),
            run_as: config.process.as_ref().map(|process| process.run_as.clone()).unwrap_or_default(),
            process: None,
            tenure: Tenure::new(shared.workers.count()),
        };
        let (current, serving) = watch::channel(Arc::new(first));
        let (pids, started) = Pids::new();
        let orders = Orders::new();
        let parking = Parking::default();
        let target = Arc::new(ArcSwap::from_pointee(InboundTarget::default()));
        let inbound = shared
            .workers
            .serve(
                config.inbound,
                Hop::Inbound(InboundConfig {
                    name: name.clone(),
                    service: config.service.clone(),
                    protocol: config.protocol,
                    target: target.clone(),
                    parking: parking.clone(),
                    snapshot: snapshot.clone(),
                    acceptor: config
                        .credential
                        .as_ref()
                        .map_or_else(Acceptor::plain, |credential| Acceptor::mutual(credential.own(), Admit::Services)),
                    connector: Connector::plain(),
                    access: shared.journal.writer(),
                    load: meter.clone(),
                    denials: denials.clone(),
                }),
            )
            .with_context(|| format!("inbound {}", config.inbound))?;

        let mut announcement = announce::announcement(&config, &id, inbound.local_addr(), &address);
        if let Some(left) = left {
            // To callers it is the one that it was.
            announcement.incarnation = left.incarnation;
        }
        let (announcement, announced) = watch::channel(announcement);
        let (view, viewed) = watch::channel(View::default());
        let (process, _) = watch::channel(None);
        // The report needs the uplink's figures, and the uplink the report.
        let link: Arc<OnceLock<UplinkHandle>> = Arc::default();
        let outbound = Outbound {
            config: &config,
            shared: &shared,
            name,
            snapshot,
            calls: calls.clone(),
            permits: permits.clone(),
            denials: denials.clone(),
            link: link.clone(),
        };
        let first = outbound.serve(None, config.outbound)?;
        let attach = AttachConfig {
            mesh: config.mesh.clone().map_or_else(|| MeshName::new("mesh"), Ok)?,
            service: config.service.clone(),
            instance: config.instance.clone(),
            zone: config.zone.clone(),
            outbound: format!("http://{}", first.local_addr()),
            socket: sockets.protocol(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            report_every: REPORT_EVERY,
            parent_of: config.process.is_some().then_some(started),
            log_level: LogLevel::Info,
            output: Some(output::link_sink(output.clone())),
            metrics: shared.metrics.clone(),
        };
        let socket = attach.socket.clone();
        let (attach, attached) =
            AttachServer::bind(attach).await.with_context(|| format!("service protocol {}", socket.display()))?;
        let levels = LevelOf::new(attached.clone(), output.clone(), config.log_level);
        let sources = Sources {
            view: viewed,
            meter,
            calls,
            denials,
            current: serving,
            attachments: attached.attachments(),
            parking: parking.clone(),
            credential: config.credential.clone(),
            uplink: link.clone(),
        };
        let mut outbounds = vec![first];
        let mut used = Vec::new();
        for service in &config.uses {
            let own = outbound.serve(Some(service.clone()), SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?;
            used.push((service.clone(), own.local_addr()));
            outbounds.push(own);
        }
        let incarnation = announced.borrow().incarnation.clone();
        let (uplink, linked) = Uplink::new(UplinkConfig {
            mesh: config.mesh.clone(),
            node: config.node.clone(),
            zone: config.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation,
            masters: config.masters.clone(),
            connector: peers(&config),
            credential: config.credential.clone(),
            snapshot_file: config.state_dir.as_ref().map(|folder| folder.join(format!("snapshot-{}", config.instance))),
            announcement: announced,
            report: Arc::new(move || sources.report()),
            uses: config.uses.clone(),
            limits: Limits::default(),
            publish: Arc::new(move |snapshot| snapshots.publish(snapshot)),
            output: Some(Arc::new(Output {
                instance: id.to_string(),
                printed: output.clone(),
                journal: JournalLines {
                    journal: shared.journal.clone(),
                    access_of: Some(id.to_string()),
                    program: shared.program.clone(),
                },
                level: Some(levels.clone()),
            })),
            commanded: Some(config.commanded.clone().unwrap_or_else(|| Arc::new(orders.0.clone()))),
            metrics: shared.metrics.clone(),
        });
        // Nobody else sets it.
        let _first = link.set(linked.clone());
        let admin = match config.admin {
            Some(address) => {
                let listener =
                    admin::bind(&BindAddr::Tcp(address)).await.with_context(|| format!("admin {address}"))?;
                Some((listener, shared.metrics.clone(), Readiness::new()))
            }
            None => None,
        };
        Ok(Self {
            config,
            inbound,
            outbounds,
            attach,
            attached,
            uplink,
            linked,
            admin,
            target,
            parking,
            current,
            pids,
            orders,
            permits,
            announcement,
            drained,
            view,
            process,
            output,
            levels,
            sockets,
            used,
            workers: shared.workers,
        })
    }
}
