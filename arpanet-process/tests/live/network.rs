//! Containers with addresses, as an overlay gives them.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use arpanet_core::runtime::{
    Container, ContainerSpec, ExecOutput, ExecSpec, RestartPolicy, Runtime,
};
use arpanet_netlink::{Namespace, VethEnd};
use arpanet_process::ProcessRuntime;
use tokio::time::timeout;

use crate::scene::{BOUND, name, path_of, scene, until};

pub(crate) const TESTS: &[(&str, fn())] = &[(
    "attached_containers_reach_each_other",
    attached_containers_reach_each_other,
)];

/// The argument that makes this binary a server, or with an address a client of one.
pub(crate) const TALK: &str = "talk-of-the-live-tests";

/// A server tells its host's name to one client and ends; a client prints what it is told.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [] => {
            let (mut client, _) = TcpListener::bind("0.0.0.0:80").unwrap().accept().unwrap();
            let own = nix::unistd::gethostname().unwrap();
            client.write_all(own.to_str().unwrap().as_bytes()).unwrap();
        }
        [server, ..] => {
            let Ok(mut server) = TcpStream::connect((server.to_str().unwrap(), 80)) else {
                return ExitCode::FAILURE;
            };
            let mut told = String::new();
            server.read_to_string(&mut told).unwrap();
            println!("{told}");
        }
    }
    ExitCode::SUCCESS
}

fn talk(address: Option<&str>) -> Vec<String> {
    let own = std::env::current_exe().unwrap();
    let words = [own.to_str().unwrap(), TALK].into_iter().chain(address);
    words.map(str::to_owned).collect()
}

/// What a client in a container is told, once there is a server.
async fn ask(runtime: &ProcessRuntime, container: &str, server: &str) -> String {
    let mut told = String::new();
    until("the server answers", async || {
        let spec = ExecSpec::new(talk(Some(server)));
        let mut exec = runtime.exec(&name(container), &spec).await.unwrap();
        loop {
            match timeout(BOUND, exec.output.recv()).await.unwrap().unwrap() {
                ExecOutput::Output(output) => {
                    told.push_str(std::str::from_utf8(&output.bytes).unwrap());
                }
                ExecOutput::Exited(code) => return code == 0,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    told
}

fn attached_containers_reach_each_other() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let create = async |container: &str, command: Vec<String>| {
            let mut spec = ContainerSpec::command(command).named(name(container));
            spec.restart = RestartPolicy::Always;
            runtime.create(&spec).await.unwrap()
        };
        let sleep = ["sleep", "1000"].map(str::to_owned).to_vec();
        let one = create("one", sleep).await;
        let two = create("two", talk(None)).await;
        let namespace = |container: &Container| Namespace::open(path_of(container)).unwrap();
        let (near, far) = (namespace(&one), namespace(&two));
        let links = near.handle().unwrap();
        let ends = [VethEnd::new("eth0", &near), VethEnd::new("eth0", &far)];
        links.add_veth(&ends[0], &ends[1]).await.unwrap();
        for (namespace, address) in [(&near, "10.1.0.1/16"), (&far, "10.1.0.2/16")] {
            let links = namespace.handle().unwrap();
            let address = address.parse().unwrap();
            links.add_address("eth0", address).await.unwrap();
            links.set_up("eth0", true).await.unwrap();
        }
        // What was attached before the start is there at the start, and after each restart.
        runtime.start(&one.name).await.unwrap();
        runtime.start(&two.name).await.unwrap();
        for _ in 0..3 {
            assert_eq!(ask(&runtime, "one", "10.1.0.2").await, "two\n");
        }
    });
}
