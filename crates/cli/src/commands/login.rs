//! `synego login`: tokens for the admin API over TCP, made where its socket is and kept where they are used; certificates of
//! operators are kept likewise.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use synego_identity::Cause;
use synego_wire::pb;

use crate::client::Mesh;
use crate::context::Context;
use crate::credentials::{self, Kept};
use crate::failure::{DONE, Failure};
use crate::mesh::{self, Address};
use crate::output::time::{parse_duration, rfc3339};
use crate::output::{Answer, Cell, Column, Table};

const EXAMPLES: &str = "\
Examples:
  synego login --role read --name ci --out ci.token           on the master's machine: make a token
  synego login --admin 127.0.0.1:3002 --token-file ci.token   keep it here for this address
  synego login --admin vm1:3002 --certificate alice.pem       the same with the certificate of an operator
  synego login --list                                         who has one
  synego login --revoke 5f0c2a9e17b3                          make one worthless";

/// Make a token for the admin API over TCP, or keep one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Keep the token of this file (`-`: stdin) for the address of `--admin`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["list", "revoke", "forget", "out", "certificate"])]
    token_file: Option<PathBuf>,
    /// Keep the operator's certificate of this file (`synego ca operator`) for the address of `--admin`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["list", "revoke", "forget", "out"])]
    certificate: Option<PathBuf>,
    /// Forget what is kept for the address of `--admin`
    #[arg(long, conflicts_with_all = ["list", "revoke", "out"])]
    forget: bool,
    /// List the tokens and certificates that are good
    #[arg(long, conflicts_with_all = ["revoke", "out"])]
    list: bool,
    /// Make the token or certificate of this id worthless
    #[arg(long, value_name = "ID", conflicts_with = "out")]
    revoke: Option<String>,
    /// What a new token is for: read, or write
    #[arg(long, value_name = "ROLE", default_value = "write", value_parser = ["read", "write"])]
    role: String,
    /// For whom a new token is [default: the user]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long a new token is good
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
    ttl: Duration,
    /// Write a new token into this file (0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    if args.forget {
        return forget(context);
    }
    context.block_on(async {
        match (&args.token_file, &args.certificate, &args.revoke) {
            (Some(file), _, _) => keep_token(context, file).await,
            (None, Some(file), _) => keep_certificate(context, file).await,
            (None, None, Some(id)) => revoke(context, id).await,
            (None, None, None) if args.list => list(context).await,
            (None, None, None) => issue(context, args).await,
        }
    })
}

/// The address of `--admin`, for which tokens are kept.
fn address(context: &Context) -> Result<String, Failure> {
    match mesh::find(context)?.address {
        Address::Tcp(address) => Ok(address),
        Address::Unix(path) => Err(Failure::misuse("a token is kept for an address of TCP")
            .cause(format!("at unix:{} the user is known without one", path.display()))
            .help("say which: `--admin HOST:PORT`")),
    }
}

async fn keep_token(context: &Context, file: &Path) -> Result<u8, Failure> {
    let address = address(context)?;
    let token = read(file)?;
    let token = token.trim().to_owned();
    let roots: Vec<String> = credentials::root_of(&token).into_iter().collect();
    let near = Kept { token: token.clone(), ..Kept::default() };
    let far = Kept { token, roots, ..Kept::default() };
    if !far.is_under_tls() {
        return keep(context, &address, near).await;
    }
    match keep(context, &address, far).await {
        // A port of the loopback alone speaks without TLS. Who speaks TLS and is somebody else is shown no token.
        Err(failure) if speaks_no_tls(&failure) => keep(context, &address, near).await.map_err(|_| failure),
        kept => kept,
    }
}

fn speaks_no_tls(failure: &Failure) -> bool {
    let words = [Cause::Plaintext, Cause::Garbage, Cause::BrokenOff].map(|cause| format!("refused, {cause}:"));
    failure.cause.iter().any(|line| words.iter().any(|word| line.contains(word.as_str())))
}

async fn keep_certificate(context: &Context, file: &Path) -> Result<u8, Failure> {
    let address = address(context)?;
    let operator = read(file)?;
    keep(context, &address, Kept { operator, ..Kept::default() }).await
}

/// Keeps a login, once it is known to be good.
async fn keep(context: &Context, address: &str, mut login: Kept) -> Result<u8, Failure> {
    login.connector()?;
    let target = mesh::find(context)?;
    let mut mesh = Mesh::connect_as(context, target, Some(&login)).await?;
    let me = mesh.who_am_i().await?;
    login.mesh.clone_from(&me.mesh);
    if login.is_under_tls() {
        login.learn(&me.root);
    }
    let path = credentials::keep(address, login)?;
    context.screen.note(&format!("kept in {}", path.display()));
    let item = json!({
        "login": me.who,
        "role": role_word(me.role()),
        "address": address,
        "expires_at": rfc3339(me.expires_unix_ms),
    });
    context.answer(Answer::new("login", "login").of_mesh(&me.mesh, None).items(vec![item]), || {
        let until = context.clock.at(me.expires_unix_ms, context.now());
        format!("known at {address} as {} with the role {} until {until}\n", me.who, role_word(me.role()))
    });
    Ok(DONE)
}

fn read(file: &Path) -> Result<String, Failure> {
    if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(65_536).read_to_string(&mut text);
        return read.map(|_| text).map_err(|error| Failure::new("cannot read stdin").cause(error.to_string()));
    }
    credentials::read_secret(file).map_err(|error| credentials::unreadable(file, &error))
}

fn forget(context: &Context) -> Result<u8, Failure> {
    let address = address(context)?;
    let had = credentials::forget(&address)?;
    context.answer(Answer::new("login", "login").items(Vec::new()), || {
        if had { format!("forgotten: {address}\n") } else { format!("nothing was kept for {address}\n") }
    });
    Ok(DONE)
}

async fn issue(context: &Context, args: &Args) -> Result<u8, Failure> {
    let mut mesh = Mesh::find(context).await?;
    let user = || context.environment.get("USER").cloned().unwrap_or_else(|| "operator".to_owned());
    let role = if args.role == "read" { pb::AdminRole::Read } else { pb::AdminRole::Write };
    let ttl_s = u32::try_from(args.ttl.as_secs()).unwrap_or(u32::MAX);
    if ttl_s == 0 {
        return Err(Failure::misuse("--ttl: a token lives for a minute at least"));
    }
    let name = args.name.clone().unwrap_or_else(user);
    let issued = mesh.issue_login(pb::IssueLoginRequest { name, role: role.into(), ttl_s }).await?;
    let login = issued.login.unwrap_or_default();
    let until = context.clock.at(login.expires_unix_ms, context.now());
    let told = format!("{} of {} until {until}; its id is {}", role_word(login.role()), login.name, login.id);
    let mut item = view(&login);
    if let Some(path) = &args.out {
        credentials::write_new(path, format!("{}\n", issued.token).as_bytes()).map_err(|error| {
            Failure::new(format!("cannot write {}", path.display()))
                .cause(error.to_string())
                .help(format!("nobody has seen the token: make it worthless with `synego login --revoke {}`", login.id))
        })?;
        context.screen.note(&format!("{}: {told}", path.display()));
    } else {
        context.screen.note(&format!("{told}; told this once"));
        if let Value::Object(fields) = &mut item {
            fields.insert("token".into(), issued.token.clone().into());
        }
    }
    let shown = if args.out.is_some() { String::new() } else { format!("{}\n", issued.token) };
    context.answer(Answer::new("login", "login").items(vec![item]), || shown);
    Ok(DONE)
}

async fn list(context: &Context) -> Result<u8, Failure> {
    let mut mesh = Mesh::find(context).await?;
    let all = mesh.list_logins().await?.login;
    let answer = Answer::new("login", "login").items(all.iter().map(view).collect());
    context.answer(answer, || {
        let mut table =
            Table::new(&[Column::name("LOGIN"), Column::stays("ROLE"), Column::stays("ID"), Column::stays("UNTIL")]);
        for login in &all {
            let until = context.clock.at(login.expires_unix_ms, context.now());
            table.row(vec![
                Cell::new(&login.name),
                Cell::new(role_word(login.role())),
                Cell::new(&login.id),
                Cell::new(until),
            ]);
        }
        if table.is_empty() { "no token or certificate is good\n".to_owned() } else { context.table(table) }
    });
    Ok(DONE)
}

async fn revoke(context: &Context, id: &str) -> Result<u8, Failure> {
    let mut mesh = Mesh::find(context).await?;
    let login = mesh.revoke_login(id).await?.login.unwrap_or_default();
    context.answer(Answer::new("login", "login").items(vec![view(&login)]), || {
        format!("{} of {} is worthless now\n", login.id, login.name)
    });
    Ok(DONE)
}

fn view(login: &pb::LoginView) -> Value {
    json!({
        "login": login.name,
        "role": role_word(login.role()),
        "id": login.id,
        "kind": login.kind,
        "created_at": rfc3339(login.created_unix_ms),
        "expires_at": rfc3339(login.expires_unix_ms),
    })
}

fn role_word(role: pb::AdminRole) -> &'static str {
    match role {
        pb::AdminRole::Look => "look",
        pb::AdminRole::Read => "read",
        pb::AdminRole::Write | pb::AdminRole::Unspecified => "write",
    }
}
