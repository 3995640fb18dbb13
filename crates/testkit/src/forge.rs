//! Certificates that the mesh would not issue, made by OpenSSL under its root, or under another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs `openssl` to its end.
///
/// # Panics
/// When it fails.
pub fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).stdin(Stdio::null()).output().expect("openssl is on the machine");
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a certificate shall be like.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// Its names, as OpenSSL writes them.
    pub names: &'static str,
    /// Since when it is valid.
    pub from: &'static str,
    /// Until when.
    pub to: &'static str,
    /// Whether it is an authority.
    pub constraints: &'static str,
    /// What its key may do.
    pub usage: &'static str,
}

/// As the mesh `shop` would issue it to `orders`.
pub const GOOD: Made = Made {
    names: "URI:spiffe://shop/svc/orders",
    from: "20200101000000Z",
    to: "20990101000000Z",
    constraints: "CA:FALSE",
    usage: "digitalSignature",
};

/// A root with its key, and what is made with it.
#[derive(Debug)]
pub struct Forge {
    folder: PathBuf,
}

impl Forge {
    /// With the root that `export` writes into the file that it gets; certificates go below `home`.
    ///
    /// # Panics
    /// When there is no room for them.
    pub fn with_root(home: &Path, export: impl FnOnce(&str)) -> Self {
        let folder = home.join("state/forge");
        fs::create_dir(&folder).expect("a folder");
        export(&folder.join("root.pem").display().to_string());
        Self { folder }
    }

    /// With a root of its own.
    ///
    /// # Panics
    /// When OpenSSL makes none.
    #[must_use]
    pub fn of_its_own(home: &Path) -> Self {
        let folder = home.join("state/other");
        fs::create_dir(&folder).expect("a folder");
        let [key, root] = ["key", "pem"].map(|kind| folder.join(format!("own.{kind}")).display().to_string());
        let curve = "ec_paramgen_curve:P-256";
        let what = ["-x509", "-days", "30", "-subj", "/O=shop/CN=root", "-addext", "keyUsage=keyCertSign"];
        let how = ["req", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", &key, "-out", &root];
        openssl(&[&how[..], &what].concat());
        let text = fs::read_to_string(&root).expect("a root") + &fs::read_to_string(&key).expect("a key");
        fs::write(folder.join("root.pem"), text).expect("written");
        Self { folder }
    }

    /// A certificate and its key: two files.
    ///
    /// # Panics
    /// When OpenSSL makes none.
    #[must_use]
    pub fn make(&self, name: &str, made: &Made) -> [String; 2] {
        let file = |kind: &str| self.folder.join(format!("{name}.{kind}")).display().to_string();
        let folder = self.folder.display();
        let config = format!(
            "[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/{name}.db\nnew_certs_dir={folder}\ndefault_md=sha256\n\
             policy=any\nunique_subject=no\nrand_serial=yes\n[any]\ncommonName=optional\n[ext]\nsubjectAltName={}\n\
             basicConstraints=critical,{}\nkeyUsage=critical,{}\nextendedKeyUsage=clientAuth,serverAuth\n",
            made.names, made.constraints, made.usage
        );
        fs::write(file("cnf"), config).expect("written");
        fs::write(file("db"), "").expect("written");
        let [key, csr, pem, cnf] = ["key", "csr", "pem", "cnf"].map(file);
        let curve = "ec_paramgen_curve:P-256";
        openssl(&[
            "req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", &key, "-out", &csr, "-subj",
            "/CN=x",
        ]);
        let root = self.folder.join("root.pem").display().to_string();
        let what =
            ["ca", "-batch", "-notext", "-config", &cnf, "-extensions", "ext", "-cert", &root, "-keyfile", &root];
        openssl(&[&what[..], &["-in", &csr, "-out", &pem, "-startdate", made.from, "-enddate", made.to]].concat());
        [pem, key]
    }
}
