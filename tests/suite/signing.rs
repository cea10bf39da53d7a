//! Signed bundles: keys, signatures, and every way for one to be refused.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use minisign::{KeyPair, SecretKeyBox};
use nix::sys::signal::Signal;

use crate::daemon::{Daemon, until};
use crate::program::{Bench, BrokenBundle};
use crate::slots::calibration;

/// Makes the keys `keys/NAME.key` and `keys/NAME.pub`.
pub fn make_keys(bench: &Bench, name: &str) -> String {
    let path = bench.path(&format!("keys/{name}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let run = bench.rtpt(&["bundle", "keygen", "--no-password", path.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    format!("{}.key", path.display())
}

pub fn sign(bench: &Bench, bundle: &str, key: &str, more: &[&str]) {
    let run = bench.rtpt(&[&["bundle", "sign", "--key", key], more, &[bundle]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
}

/// A signature over some bytes with any trusted comment, as minisign makes it.
pub fn signature(key: &str, bytes: &[u8], comment: &str) -> String {
    let key = SecretKeyBox::from_string(&fs::read_to_string(key).unwrap()).unwrap();
    let key = key.into_unencrypted_secret_key().unwrap();
    minisign::sign(None, &key, Cursor::new(bytes), Some(comment), None).unwrap().into_string()
}

fn manifest(bundle: &BrokenBundle) -> Vec<u8> {
    fs::read(bundle.file("manifest.json")).unwrap()
}

#[test]
fn a_signed_bundle_is_opened_and_says_whose_it_is() {
    let bench = Bench::new();
    let bundle = bench.bundle();
    let key = make_keys(&bench, "maker");
    let keys = bench.path("keys");
    let keys = keys.to_str().unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "others must not read the secret key");
    sign(&bench, bundle.folder(), &key, &["--bundle-version", "7", "--expires", "2099-12-31"]);
    let run = bench.rtpt(&["bundle", "check", "--trusted-keys", keys, bundle.folder()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("signed: version 7, by the key maker, valid to 2099-12-31"), "{}", run.stdout);
    let info = bench.rtpt(&["bundle", "info", "--trusted-keys", keys, bundle.folder()]).stdout;
    assert!(info.contains("version 7, by the key maker"), "{info}");
    // By the environment, and for whoever classifies.
    let image = bench.image("rgb.png");
    let mut command = bench.command(&["classify", "--bundle", bundle.folder(), &image]);
    assert!(command.env("RTPT_TRUSTED_KEYS", keys).output().unwrap().status.success());
    // A key is not written over.
    let name = key.trim_end_matches(".key");
    bench.rtpt(&["bundle", "keygen", "--no-password", name]).fails_with(1, &["maker.key exists already"]);
    // minisign's own signature and its plain form of a key will do.
    let other = KeyPair::generate_unencrypted_keypair().unwrap();
    fs::write(bench.path("keys/plain.pub"), other.pk.to_base64()).unwrap();
    let bytes = manifest(&bundle);
    let comment = "rtpt version=8 name=tiny";
    let own = minisign::sign(None, &other.sk, Cursor::new(&bytes), Some(comment), None).unwrap().into_string();
    fs::write(bundle.file("manifest.json.minisig"), own).unwrap();
    let run = bench.rtpt(&["bundle", "check", "--trusted-keys", keys, bundle.folder()]);
    assert!(run.code == 0 && run.stdout.contains("version 8, by the key plain"), "{}{}", run.stdout, run.stderr);
    // Without keys nothing of it matters.
    fs::write(bundle.file("manifest.json.minisig"), "nonsense").unwrap();
    assert_eq!(bench.rtpt(&["bundle", "check", bundle.folder()]).code, 0);
}

#[test]
fn bundles_that_must_not_be_opened_are_refused_each_with_its_reason() {
    let bench = Bench::new();
    let bundle = bench.bundle();
    let key = make_keys(&bench, "maker");
    let keys = bench.path("keys");
    let file = bundle.file("manifest.json.minisig");
    let refused = |what: &str, parts: &[&str]| {
        let run = bench.rtpt(&["bundle", "check", "--trusted-keys", keys.to_str().unwrap(), bundle.folder()]);
        assert!(run.code == 3 && parts.iter().all(|part| run.stderr.contains(part)), "{what}: {}", run.stderr);
    };
    refused("unsigned", &["manifest.json.minisig is missing", "sign the bundle"]);
    sign(&bench, bundle.folder(), &key, &["--bundle-version", "1"]);
    let good = fs::read_to_string(&file).unwrap();

    let stranger = KeyPair::generate_unencrypted_keypair().unwrap();
    let bytes = manifest(&bundle);
    let comment = Some("rtpt name=tiny version=1");
    let strange = minisign::sign(None, &stranger.sk, Cursor::new(&bytes), comment, None).unwrap().into_string();
    fs::write(&file, strange).unwrap();
    refused("another's key", &["is of a key that is not trusted", "maker"]);

    for (what, changed) in [
        ("nothing", String::new()),
        ("cut off", good[..good.len() / 2].into()),
        ("two lines", good.lines().take(2).map(|line| format!("{line}\n")).collect()),
        ("no base64", good.replace('A', "!")),
        ("no comment", good.replace("trusted comment: ", "trusted: ")),
    ] {
        fs::write(&file, changed).unwrap();
        refused(what, &["is not a signature of minisign", "sign the bundle again"]);
    }
    fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    refused("no text", &["is not a signature of minisign"]);

    // The comment is signed: a version cannot be written into it.
    fs::write(&file, good.replace("version=1", "version=9")).unwrap();
    refused("another comment", &["is not the signature of this manifest", "do not use it"]);
    fs::write(&file, &good).unwrap();
    bundle.manifest(|manifest| manifest["description"] = "changed".into());
    refused("another manifest", &["is not the signature of this manifest", "the key maker is trusted"]);

    let bytes = manifest(&bundle);
    for (comment, parts) in [
        ("timestamp:1700000000\tfile:manifest.json\thashed", ["the trusted comment", "rtpt name=NAME version=NUMBER"]),
        ("rtpt name=other version=1", ["is for \"other\"", "the bundle is \"tiny\""]),
        ("rtpt name=tiny version=1 expires=2026-01-31", ["expired on 2026-01-31", "get a newer bundle"]),
        ("rtpt name=tiny version=1 until=2099-01-31", ["the trusted comment", "expires=YYYY-MM-DD"]),
    ] {
        fs::write(&file, signature(&key, &bytes, comment)).unwrap();
        refused(comment, &parts);
    }
    // A key that is taken away has signed nothing any more, and without any key nothing is opened.
    fs::write(&file, signature(&key, &bytes, "rtpt name=tiny version=1")).unwrap();
    let check = ["bundle", "check", "--trusted-keys", keys.to_str().unwrap(), bundle.folder()];
    assert_eq!(bench.rtpt(&check).code, 0);
    fs::write(bench.path("keys/other.pub"), stranger.pk.to_base64()).unwrap();
    fs::remove_file(bench.path("keys/maker.pub")).unwrap();
    refused("revoked", &["is of a key that is not trusted", "expected a signature of other"]);
    fs::remove_file(bench.path("keys/other.pub")).unwrap();
    bench.rtpt(&check).fails_with(2, &["the trusted keys in", "there is none"]);
    fs::write(bench.path("keys/broken.pub"), "no key").unwrap();
    bench.rtpt(&check).fails_with(2, &["broken.pub", "as minisign makes them"]);
    // A signed bundle whose files were changed is refused as any other.
    fs::remove_file(bench.path("keys/broken.pub")).unwrap();
    let key = make_keys(&bench, "second");
    sign(&bench, bundle.folder(), &key, &["--bundle-version", "2"]);
    bundle.damage("labels.txt", |bytes| bytes[0] ^= 1);
    refused("another file", &["labels.txt has BLAKE3 digest"]);
}

#[test]
fn keys_that_cannot_sign_say_why() {
    let bench = Bench::new();
    let bundle = bench.bundle();
    let sign = |key: &str| bench.rtpt(&["bundle", "sign", "--key", key, "--bundle-version", "1", bundle.folder()]);
    sign("nowhere.key").fails_with(1, &["cannot read nowhere.key"]);
    let public =
        bench.write("x.pub", b"untrusted comment: x\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n");
    sign(&public).fails_with(2, &["the secret key", "cannot be used", "NAME.key"]);
    let pair = KeyPair::generate_encrypted_keypair(Some("secret".into())).unwrap();
    let locked = bench.write("locked.key", pair.sk.to_box(None).unwrap().into_string().as_bytes());
    // Nobody is there to type it.
    sign(&locked).fails_with(2, &["locked.key", "no password"]);
    let key = make_keys(&bench, "maker");
    // minisign's own keys have no checksum where they have no password; one whose bytes were changed signs nothing.
    let text = fs::read_to_string(&key).unwrap();
    let mut bytes = BASE64.decode(text.lines().nth(1).unwrap()).unwrap();
    bytes[126..].fill(0);
    let plain = |bytes: &[u8]| format!("untrusted comment: minisign encrypted secret key\n{}\n", BASE64.encode(bytes));
    let own = bench.write("own.key", plain(&bytes).as_bytes());
    assert_eq!(sign(&own).code, 0, "{}", sign(&own).stderr);
    bytes[70] ^= 1;
    let damaged = bench.write("damaged.key", plain(&bytes).as_bytes());
    sign(&damaged).fails_with(2, &["the secret key", "cannot be used"]);
    bundle.manifest(|manifest| manifest["name"] = "a name".into());
    sign(&key).fails_with(2, &["\"a name\" cannot be signed", "without white space"]);
    bundle.manifest(|manifest| manifest["name"] = "tiny".into());
    let past = ["bundle", "sign", "--key", &key, "--bundle-version", "1", "--expires", "2020-01-31", bundle.folder()];
    bench.rtpt(&past).fails_with(2, &["would have expired on 2020-01-31", "choose a later day"]);
}

#[test]
fn a_daemon_opens_no_older_version_than_it_has_had() {
    let bench = Bench::new();
    let bundle = bench.bundle();
    let key = make_keys(&bench, "maker");
    let keys = bench.path("keys");
    let flags = ["--bundle", bundle.folder(), "--trusted-keys", keys.to_str().unwrap()];
    sign(&bench, bundle.folder(), &key, &["--bundle-version", "5"]);
    let mut daemon = Daemon::start(&bench, &flags);
    for (version, status, kind) in
        [("6", 200, ""), ("5", 500, "older_version"), ("6", 200, ""), ("0", 500, "older_version")]
    {
        sign(&bench, bundle.folder(), &key, &["--bundle-version", version]);
        let reply = daemon.send("POST", "/v1/reload", &[], b"");
        assert_eq!(reply.status, status, "{version}: {}", reply.text());
        if status != 200 {
            reply.refused(status, kind);
            assert!(reply.text().contains("expected 6 or later"), "{}", reply.text());
        }
        assert_eq!(daemon.get("/readyz").status, 200, "the old one serves on");
    }
    fs::remove_file(Path::new(bundle.folder()).join("manifest.json.minisig")).unwrap();
    daemon.signal(Signal::SIGHUP);
    until("an unsigned one is refused", || daemon.log().contains("manifest.json.minisig is missing").then_some(()));
    assert_eq!(daemon.get("/readyz").status, 200);
    assert_eq!(daemon.terminate(), Some(0));
    sign(&bench, bundle.folder(), &key, &["--bundle-version", "5"]);
    let mut daemon = Daemon::launch(&bench, &flags, |command| command);
    assert_eq!(daemon.wait(), Some(3), "also after a restart");
}

#[test]
fn a_calibration_is_signed_with_its_bundle() {
    let bench = Bench::new();
    let bundle = bench.bundle();
    let key = make_keys(&bench, "maker");
    let keys = bench.path("keys");
    let image = bench.image("rgb.png");
    let folder = Path::new(bundle.folder());
    let classify = || {
        let flags = ["--views", "4", "--json", "--bundle", bundle.folder(), "--trusted-keys", keys.to_str().unwrap()];
        bench.rtpt(&[&["classify"], &flags[..], &[&image]].concat())
    };
    let suspicious = || -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&classify().stdout).unwrap()["tamper"]["suspicious"].clone()
    };
    sign(&bench, bundle.folder(), &key, &["--bundle-version", "1"]);
    assert_eq!(suspicious(), serde_json::Value::Null);
    // One that the signature is not over is as if it were not there.
    fs::write(bundle.file("calibration.json"), calibration(folder, 0.0)).unwrap();
    assert_eq!(suspicious(), serde_json::Value::Null);
    assert!(classify().stderr.contains("the signature is not over it"), "{}", classify().stderr);
    sign(&bench, bundle.folder(), &key, &["--bundle-version", "1"]);
    assert_eq!(suspicious(), true);
    // What was signed is what is used, or nothing is.
    fs::write(bundle.file("calibration.json"), calibration(folder, 1.0)).unwrap();
    classify().fails_with(3, &["calibration.json is not the one that was signed", "sign it again"]);
    fs::remove_file(bundle.file("calibration.json")).unwrap();
    classify().fails_with(3, &["calibration.json cannot be read"]);
}
