//! Case 5: tickets, membership and credentials.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ockam::identity::models::CredentialAndPurposeKey;
use ockam::identity::{
    CredentialRetrieverCreator, Identifier, RemoteCredentialRetrieverCreator, RemoteCredentialRetrieverInfo,
    RemoteCredentialRetrieverTimingOptions, SecureChannel, SecureChannelListenerOptions,
    SecureChannelOptions, SecureClient, TrustIdentifierPolicy,
};
use ockam::tcp::{TCP, TcpInletOptions};
use ockam::{Context, LocalMessage, Route, Routed, Worker, route};
use ockam_core::api::{Reply, Request, Response};
use ockam_core::{NeutralMessage, SecureChannelLocalInfo};
use portolan_interop::stock::Stock;
use portolan_interop::{eventually, run};
use portolan_tests::{Home, Project, Service};

const LIMIT: Duration = Duration::from_secs(10);

/// The seven fields of a ticket (spec 03 §3.1), with the routes as a stock node takes them.
struct Ticket {
    project_route: Vec<String>,
    project_history: String,
    authority_history: String,
    authority_route: Vec<String>,
    address: String,
    code: Vec<u8>,
}

impl Ticket {
    fn parse(text: &str) -> Self {
        // Ours is the hexadecimal form of the line, which a stock `project enroll` takes too (spec 03 §3.2).
        let line = String::from_utf8(hex::decode(text).expect("hexadecimal")).expect("text");
        let fields: Vec<&str> = line.split(',').collect();
        // More than seven are ignored by stock; ours has a checksum there.
        assert!(fields.len() >= 7, "{line}");
        let (address, project_route) = route_of(fields[0]);
        let (_, authority_route) = route_of(fields[6]);
        Self {
            project_route,
            project_history: fields[4].to_owned(),
            authority_history: fields[5].to_owned(),
            authority_route,
            address,
            code: hex::decode(fields[3]).expect("a code is hexadecimal"),
        }
    }
}

/// `/ip4/H/tcp/P/service/a/service/b`: where to connect, and the hops there.
fn route_of(multiaddr: &str) -> (String, Vec<String>) {
    let parts: Vec<&str> = multiaddr.split('/').skip(1).collect();
    let hops = parts[4..].chunks(2).map(|pair| pair[1].to_owned()).collect();
    (format!("{}:{}", parts[1], parts[3]), hops)
}

/// A stock node that has a ticket in its hands.
struct Member {
    stock: Stock,
    ticket: Ticket,
    authority: Identifier,
    project: Identifier,
}

impl Member {
    async fn with(ticket: &str) -> Self {
        let stock = Stock::start().await;
        let ticket = Ticket::parse(ticket);
        let authority = stock.import(&ticket.authority_history).await;
        let project = stock.import(&ticket.project_history).await;
        Self {
            stock,
            ticket,
            authority,
            project,
        }
    }

    fn authority_route(&self) -> Route {
        let first: Route = route![(TCP, self.ticket.address.as_str())];
        let hops = self.ticket.authority_route.iter();
        hops.fold(first.modify(), |route, hop| route.append(hop.as_str()))
            .into()
    }

    fn client(&self) -> SecureClient {
        SecureClient::new(
            self.stock.node.secure_channels(),
            None,
            self.stock.tcp.clone(),
            self.authority_route(),
            Arc::new(TrustIdentifierPolicy::new(self.authority.clone())),
            &self.stock.identifier,
            LIMIT,
            LIMIT,
        )
    }

    /// One request with the stock client: the body of the answer, or the message of the refusal.
    async fn request(&self, service: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, String> {
        let context = self.stock.node.context();
        let request = Request::post("/");
        let answer: Result<Reply<NeutralMessage>, _> = match body {
            Some(body) => {
                self.client()
                    .ask(context, service, request.body(NeutralMessage::from(body)))
                    .await
            }
            None => self.client().ask(context, service, request).await,
        };
        match answer.map_err(|error| error.to_string())? {
            Reply::Successful(body) => Ok(body.into_vec()),
            Reply::Failed(error, status) => {
                Err(format!("{status:?} {}", error.message().unwrap_or_default()))
            }
        }
    }

    /// Redeems the ticket's code.
    async fn redeem(&self) -> Result<(), String> {
        // `{1: bytes(32)}`.
        let body = [&[0xa1, 0x01, 0x58, 0x20], self.ticket.code.as_slice()].concat();
        let request = Request::post("/").body(NeutralMessage::from(body));
        let context = self.stock.node.context();
        let answer = self
            .client()
            .tell(context, "enrollment_token_acceptor", request)
            .await;
        match answer.map_err(|error| error.to_string())? {
            Reply::Successful(()) => Ok(()),
            Reply::Failed(error, status) => {
                Err(format!("{status:?} {}", error.message().unwrap_or_default()))
            }
        }
    }

    /// Fetches a credential.
    async fn credential(&self) -> Result<CredentialAndPurposeKey, String> {
        let body = self.request("credential_issuer", None).await?;
        CredentialAndPurposeKey::decode_from_cbor_bytes(&body).map_err(|error| error.to_string())
    }

    /// What the credential says, checked by the stock library.
    async fn said(&self, credential: &CredentialAndPurposeKey, name: &str) -> Option<String> {
        let verification = self.stock.node.credentials().credentials_verification();
        let data = verification
            .verify_credential(
                Some(&self.stock.identifier),
                std::slice::from_ref(&self.authority),
                credential,
            )
            .await
            .expect("the stock library verifies it");
        let attributes = data.credential_data.subject_attributes.map;
        attributes
            .into_iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .find(|(key, _)| key == name.as_bytes())
            .map(|(_, value)| String::from_utf8_lossy(&value).into_owned())
    }

    /// The stock machinery that fetches a credential when it is needed and renews it `after` that long.
    fn retriever(&self, life: Duration, after: Duration) -> Arc<dyn CredentialRetrieverCreator> {
        let timing = RemoteCredentialRetrieverTimingOptions {
            request_timeout: LIMIT,
            secure_channel_creation_timeout: LIMIT,
            min_refresh_interval: Duration::from_secs(1),
            proactive_refresh_gap: (life - after).into(),
            clock_skew_gap: 1.into(),
        };
        Arc::new(RemoteCredentialRetrieverCreator::new_extended(
            self.stock.detached(ockam_core::Address::random_local()),
            self.stock.tcp.clone(),
            self.stock.node.secure_channels(),
            RemoteCredentialRetrieverInfo::create_for_project_member(
                self.authority.clone(),
                self.authority_route(),
            ),
            "project-member".to_owned(),
            timing,
        ))
    }

    /// A channel to the project node, presenting a credential.
    async fn to_project(&self, retriever: &Arc<dyn CredentialRetrieverCreator>) -> SecureChannel {
        let connection = self.stock.connect(&self.ticket.address).await;
        let first: Route = route![connection];
        let hops = self.ticket.project_route.iter();
        let route: Route = hops
            .fold(first.modify(), |route, hop| route.append(hop.as_str()))
            .into();
        let options = self
            .options(retriever)
            .with_trust_policy(TrustIdentifierPolicy::new(self.project.clone()));
        self.stock
            .channel(route, options)
            .await
            .expect("a channel to the project node")
    }

    fn options(&self, retriever: &Arc<dyn CredentialRetrieverCreator>) -> SecureChannelOptions {
        SecureChannelOptions::new()
            .with_timeout(LIMIT)
            .with_authority(self.authority.clone())
            .with_credential_retriever_creator(retriever.clone())
            .expect("options")
    }

    /// An inlet to the outlet of `bank`, through the relay at the project node.
    async fn inlet_to_bank(&self, retriever: &Arc<dyn CredentialRetrieverCreator>) -> SocketAddr {
        let project = self.to_project(retriever).await;
        let through: Route = route![project, "forward_to_bank", "api"];
        let channel = self
            .stock
            .channel(through, self.options(retriever))
            .await
            .expect("a channel to the bank");
        let inlet = self
            .stock
            .tcp
            .create_inlet("127.0.0.1:0", route![channel, "outlet"], TcpInletOptions::new())
            .await
            .expect("an inlet");
        inlet.socket_address()
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Whether an echo comes back through the portal at `address`, within five seconds.
fn echoes(address: SocketAddr) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return false;
    };
    let mut answer = [0; 5];
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a limit can be set");
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"hello"
}

#[test]
fn a_stock_node_redeems_a_portolan_ticket_and_gets_a_credential() {
    run(async {
        let project = Project::start();
        let member = Member::with(&project.ticket(&["--attribute", "role=client"])).await;
        let refused = member.credential().await.expect_err("it is no member yet");
        assert!(
            refused.contains("Forbidden") && refused.contains("unauthorized member"),
            "{refused}"
        );
        member.redeem().await.expect("the code is good");
        // A stock client takes this for a success (spec 03 §3.5).
        let again = member.redeem().await.expect_err("it is a member");
        assert!(
            again.contains("Forbidden") && again.to_lowercase().contains("already a member"),
            "{again}"
        );
        let credential = member.credential().await.expect("a member gets a credential");
        assert_eq!(member.said(&credential, "role").await.as_deref(), Some("client"));
        assert_eq!(member.said(&credential, "nothing").await, None);
        // The code was for one.
        let late = Member::with(&project.ticket(&[])).await;
        let stolen = Member {
            ticket: Ticket {
                code: member.ticket.code.clone(),
                ..late.ticket
            },
            ..late
        };
        stolen.redeem().await.expect_err("the code is used up");
    });
}

#[test]
fn a_stock_member_is_let_in_by_a_portolan_outlet_for_its_attribute_alone() {
    run(async {
        let project = Project::start();
        let _bank = project.bank(Service::echo().address);
        let client = Member::with(&project.ticket(&["--attribute", "role=client"])).await;
        client.redeem().await.expect("the code is good");
        let inlet = client.inlet_to_bank(&client.retriever(HOUR, HOUR / 2)).await;
        assert!(echoes(inlet), "the policy wants role=client, and it has that");

        let other = Member::with(&project.ticket(&["--attribute", "role=visitor"])).await;
        other.redeem().await.expect("the code is good");
        let inlet = other.inlet_to_bank(&other.retriever(HOUR, HOUR / 2)).await;
        assert!(!echoes(inlet), "it has another role");
    });
}

#[test]
fn a_stock_member_has_the_relay_that_its_credential_names_and_no_other() {
    run(async {
        let project = Project::start();
        let member = Member::with(&project.ticket(&["--relay", "blue"])).await;
        member.redeem().await.expect("the code is good");
        let channel = member.to_project(&member.retriever(HOUR, HOUR / 2)).await;
        let relay = member
            .stock
            .register(route![channel.clone()], "blue")
            .await
            .expect("it may have that one");
        assert!(
            relay.remote_address().ends_with("blue"),
            "{}",
            relay.remote_address()
        );
        member
            .stock
            .register(route![channel.clone()], "red")
            .await
            .expect_err("it may not have that one");
        // The channel lives on.
        assert_eq!(
            member
                .stock
                .ask(route![channel, "echo"], b"ping")
                .await
                .expect("an answer"),
            b"ping"
        );
    });
}

#[test]
fn a_renewed_credential_reaches_a_portolan_outlet_over_open_channels() {
    run(async {
        let project = Project::start();
        let _bank = project.bank(Service::echo().address);
        let member = Member::with(&project.ticket(&["--attribute", "role=visitor"])).await;
        member.redeem().await.expect("the code is good");
        // Renews its credential every four seconds.
        let inlet = member
            .inlet_to_bank(&member.retriever(HOUR, Duration::from_secs(4)))
            .await;
        assert!(!echoes(inlet), "not with this role");
        let identifier = member.stock.identifier.to_string();
        project
            .home
            .ok(["project-member", "add", &identifier, "--attribute", "role=client"]);
        eventually("it is let in", Duration::from_secs(20), async || echoes(inlet)).await;
        project.home.ok([
            "project-member",
            "add",
            &identifier,
            "--attribute",
            "role=visitor",
        ]);
        eventually("it is kept out again", Duration::from_secs(20), async || {
            !echoes(inlet)
        })
        .await;
    });
}

#[test]
fn a_stock_member_outlives_a_restart_of_the_authority() {
    run(async {
        let project = Project::start();
        let member = Member::with(&project.ticket(&["--attribute", "role=client"])).await;
        member.redeem().await.expect("the code is good");
        project.home.kill_processes();
        member.credential().await.expect_err("nobody is there");
        project.home.ok(["node", "start", &project.node_name()]);
        let credential = member.credential().await.expect("it is a member still");
        assert_eq!(member.said(&credential, "role").await.as_deref(), Some("client"));
    });
}

#[test]
fn a_deleted_stock_member_gets_no_credential_and_may_come_back_with_a_new_ticket() {
    run(async {
        let project = Project::start();
        let member = Member::with(&project.ticket(&[])).await;
        member.redeem().await.expect("the code is good");
        member.credential().await.expect("a credential");
        let identifier = member.stock.identifier.to_string();
        project
            .home
            .ok(["project-member", "delete", &identifier, "--yes"]);
        let refused = member.credential().await.expect_err("it is no member any more");
        assert!(
            refused.contains("Forbidden") && refused.contains("unauthorized member"),
            "{refused}"
        );
        let fresh = Ticket::parse(&project.ticket(&["--attribute", "role=again"]));
        let member = Member {
            ticket: fresh,
            ..member
        };
        member.redeem().await.expect("the new code is good");
        let credential = member.credential().await.expect("a member again");
        assert_eq!(member.said(&credential, "role").await.as_deref(), Some("again"));
    });
}

// --- Portolan as the member of an authority that is made of the stock library ---------------------------------------

/// Redeems one code, for one identity; what a stock authority does at `enrollment_token_acceptor`.
struct Acceptor {
    code: Vec<u8>,
    members: Arc<Mutex<Vec<Identifier>>>,
}

/// Issues credentials to the members; what a stock authority does at `credential_issuer`.
struct Issuer {
    node: Arc<Stock>,
    members: Arc<Mutex<Vec<Identifier>>>,
}

fn caller(message: &LocalMessage) -> Identifier {
    Identifier::from(
        SecureChannelLocalInfo::find_info(message)
            .expect("through a channel")
            .their_identifier(),
    )
}

#[ockam::worker]
impl Worker for Acceptor {
    type Context = Context;
    type Message = Request<NeutralMessage>;

    async fn handle_message(
        &mut self,
        ctx: &mut Context,
        message: Routed<Self::Message>,
    ) -> ockam::Result<()> {
        let (back, who) = (message.return_route().clone(), caller(message.local_message()));
        let (header, body) = message.into_body()?.into_parts();
        let code = body.map(NeutralMessage::into_vec).unwrap_or_default();
        let known = self.members.lock().expect("nobody panics with it").contains(&who);
        if known {
            return ctx
                .send(back, Response::forbidden(&header, "Already a member"))
                .await;
        }
        // `{1: bytes(32)}`, once.
        if self.code.is_empty() || code != [&[0xa1, 0x01, 0x58, 0x20], self.code.as_slice()].concat() {
            return ctx
                .send(back, Response::forbidden(&header, "Unknown enrollment token"))
                .await;
        }
        self.code.clear();
        self.members.lock().expect("nobody panics with it").push(who);
        ctx.send(back, Response::ok().with_headers(&header)).await
    }
}

#[ockam::worker]
impl Worker for Issuer {
    type Context = Context;
    type Message = Request<NeutralMessage>;

    async fn handle_message(
        &mut self,
        ctx: &mut Context,
        message: Routed<Self::Message>,
    ) -> ockam::Result<()> {
        let (back, who) = (message.return_route().clone(), caller(message.local_message()));
        let (header, _) = message.into_body()?.into_parts();
        let known = self.members.lock().expect("nobody panics with it").contains(&who);
        if !known {
            return ctx
                .send(back, Response::forbidden(&header, "unauthorized member"))
                .await;
        }
        let credential = self
            .node
            .issue(&who, "role", "client", HOUR)
            .await
            .encode_as_cbor_bytes()?;
        ctx.send(
            back,
            Response::ok()
                .with_headers(&header)
                .body(NeutralMessage::from(credential)),
        )
        .await
    }
}

#[test]
fn portolan_enrolls_at_an_authority_made_of_the_stock_library_and_presents_its_credential() {
    run(async {
        let stock = Arc::new(Stock::start().await);
        let address = stock.listen().await.socket_address().to_owned();
        let options = SecureChannelListenerOptions::new().with_authority(stock.identifier.clone());
        let flow = options.spawner_flow_control_id();
        let (code, members) = (portolan_interop::noise(32), Arc::new(Mutex::new(Vec::new())));
        let acceptor = Acceptor {
            code: code.clone(),
            members: members.clone(),
        };
        let issuer = Issuer {
            node: stock.clone(),
            members: members.clone(),
        };
        stock
            .node
            .start_worker("enrollment_token_acceptor", acceptor)
            .expect("the address is free");
        stock
            .node
            .start_worker("credential_issuer", issuer)
            .expect("the address is free");
        for service in ["enrollment_token_acceptor", "credential_issuer"] {
            stock.node.flow_controls().add_consumer(&service.into(), &flow);
        }
        stock.accept(options);

        // The form that stock prints: seven fields, commas (spec 03 §3.1).
        let (route, history) = (
            format!("/ip4/127.0.0.1/tcp/{}/service/api", address.port()),
            stock.history().await,
        );
        let (identifier, code) = (&stock.identifier, hex::encode(code));
        let ticket = format!("{route},{identifier},stock,{code},{history},{history},{route}");
        let home = Home::new();
        home.ok(["project", "enroll", &ticket]);
        let shown = home.json(["identity", "show"]);
        let own = Identifier::try_from(shown["identifier"].as_str().expect("an identifier"))
            .expect("an identifier");
        let admitted = members.lock().expect("nobody panics with it").clone();
        assert_eq!(admitted, std::slice::from_ref(&own));
        // Again is a success for the same identity, and a failure for another one.
        home.ok(["project", "enroll", &ticket]);
        let late = Home::new();
        late.fails(["project", "enroll", &ticket]);

        // It presents the credential to the project node.
        home.ok(["node", "create", "n"]);
        assert_eq!(stock.attribute(&own, &stock.identifier, "role").await, None);
        let answer = home.ok([
            "message",
            "send",
            "--from",
            "n",
            "--to",
            "/project/stock/service/uppercase",
            "hello",
        ]);
        assert_eq!(answer, "HELLO");
        assert_eq!(
            stock.attribute(&own, &stock.identifier, "role").await.as_deref(),
            Some("client")
        );
    });
}
