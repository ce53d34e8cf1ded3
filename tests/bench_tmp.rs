mod harness;
use harness::{proxy::Proxy, sshd::Sshd};
use nfreezer::name::*;
use nfreezer::storage::*;
use std::time::*;
fn cpu() -> f64 {
    let f = |who: &str| {
        let s = std::fs::read_to_string(who).unwrap();
        let v: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
        // after comm: state=0 ... utime=11 stime=12 cutime=13 cstime=14
        (v[11].parse::<f64>().unwrap(), v[12].parse::<f64>().unwrap())
    };
    let (u, s) = f("/proc/self/stat");
    (u + s) / 100.0
}
fn ssh_cpu() -> f64 {
    let me = std::process::id();
    let mut t = 0.0;
    for d in std::fs::read_dir("/proc").unwrap().flatten() {
        let p = d.path().join("stat");
        if let Ok(s) = std::fs::read_to_string(p) {
            let name = s.split('(').nth(1).unwrap_or("").split(')').next().unwrap_or("").to_string();
            let v: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
            if name == "ssh" && v[1].parse::<u32>() == Ok(me) {
                t += v[11].parse::<f64>().unwrap() + v[12].parse::<f64>().unwrap();
            }
        }
    }
    t / 100.0
}
fn name(i: u64) -> Name {
    let mut id = [0u8; 32];
    id[0] = (i * 37) as u8;
    id[24..].copy_from_slice(&i.to_be_bytes());
    Name::Pack(ObjectId(id))
}
#[test]
fn bench() {
    let ms: u64 = std::env::var("RTT").map(|v| v.parse().unwrap()).unwrap_or(0);
    let threads: u64 = std::env::var("T").map(|v| v.parse().unwrap()).unwrap_or(4);
    let total: u64 = std::env::var("N").map(|v| v.parse().unwrap()).unwrap_or(40);
    let conns = std::env::var("C").ok().map(|v| v.parse().unwrap());
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let sshd = Sshd::start();
        let dir = std::path::PathBuf::from("/dev/shm/nfz-bench");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let proxy = Proxy::start(sshd.port, Duration::from_micros(ms * 500));
        let port = if ms > 0 {
            sshd.trust_port(proxy.port);
            proxy.port
        } else {
            sshd.port
        };
        let t0 = Instant::now();
        let st = open(
            &sshd.location_by(port, &dir.join("repo")),
            Options { transport, connections: conns, ..sshd.options() },
        )
        .unwrap();
        let t1 = t0.elapsed();
        st.create_folders().unwrap();
        let t2 = t0.elapsed();
        let bytes: Vec<u8> = (0..16u32 << 20).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8).collect();
        println!("{transport:?} connect {t1:?} folders +{:?}", t2 - t1);
        let per = total / threads;
        let run = |what: &str, f: &(dyn Fn(u64, u64) + Sync), threads: u64, per: u64, size: f64| {
            let (c0, s0) = (cpu(), ssh_cpu());
            let t = Instant::now();
            std::thread::scope(|s| {
                for a in 0..threads {
                    s.spawn(move || {
                        for b in 0..per {
                            f(a, b)
                        }
                    });
                }
            });
            let e = t.elapsed().as_secs_f64();
            let mb = (threads * per) as f64 * size / 1e6;
            println!(
                "  {what}: {:.0} MB/s ({} x {}), cpu self {:.2} + ssh {:.2} s/GB",
                mb / e,
                threads,
                per,
                (cpu() - c0) / mb * 1e3,
                (ssh_cpu() - s0) / mb * 1e3
            );
        };
        run("put 16M", &|a, b| st.put(&name(a * 1000 + b), &bytes).unwrap(), threads, per, (16u64 << 20) as f64);
        run(
            "read 4M",
            &|a, b| {
                let n = (a * 7 + b) % total;
                st.read(&name((n / per) * 1000 + n % per), (b % 4) << 22, 4 << 20).unwrap();
            },
            8,
            total / 2,
            (4u64 << 20) as f64,
        );
        run(
            "read 64K",
            &|a, b| {
                let n = (a * 7 + b) % total;
                st.read(&name((n / per) * 1000 + n % per), (b % 64) << 16, 1 << 16).unwrap();
            },
            8,
            total,
            65536.0,
        );
        let t = Instant::now();
        for i in 0..16 {
            st.list(Folder::PackShard(i)).unwrap();
        }
        println!("  list 16 shards {:?}", t.elapsed());
        let t = Instant::now();
        for i in 0..20 {
            st.put(&name(900_000 + i), &bytes[..5000]).unwrap();
        }
        println!("  put 5 KB each {:?}", t.elapsed() / 20);
        let t = Instant::now();
        st.read(&name(900_001), 0, 5000).unwrap();
        println!("  read 5 KB cold {:?}", t.elapsed());
        let t = Instant::now();
        st.read(&name(900_001), 0, 5000).unwrap();
        println!("  read 5 KB warm {:?}", t.elapsed());
        drop(st);
        let _ = std::fs::remove_dir_all(&dir);
    }
}
