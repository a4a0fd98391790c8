// Analysis Corp.'s application: runs SQL on the PostgreSQL that the inlet brings to its own localhost, port 15432.
//
// It speaks TLS with the database itself, end to end through the portal. It tries 100 times, 10 seconds apart (TRIES and
// TRY_SECONDS say otherwise).
import pg from "pg";

const tries = Number(process.env.TRIES ?? 100);
const seconds = Number(process.env.TRY_SECONDS ?? 10);
const analyst = process.env.ANALYST ?? "an analyst";

async function connect() {
  for (let attempt = 1; ; attempt++) {
    const client = new pg.Client({
      host: "localhost",
      port: 15432,
      user: "analyst",
      password: process.env.PGPASSWORD,
      database: "ledger",
      // The certificate names the database's host, which is not localhost. The portal has verified who is at its other end.
      ssl: { rejectUnauthorized: false },
      connectionTimeoutMillis: 10_000,
    });
    try {
      await client.connect();
      return client;
    } catch (error) {
      await client.end().catch(() => {});
      if (attempt >= tries) throw error;
      console.log(`try ${attempt} of ${tries}: ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

async function run(client) {
  const { rows: session } = await client.query(
    "SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl",
  );
  if (session.length !== 1) throw new Error("the database says that this connection has no TLS");
  console.log(`connected with ${session[0].version}, ${session[0].cipher}`);

  await client.query("CREATE TEMPORARY TABLE accounts (id int PRIMARY KEY, owner text, balance numeric)");
  await client.query("INSERT INTO accounts VALUES (1, $1, 100.50), (2, 'B', 200.25), (3, 'C', 300.75)", [analyst]);
  const { rows } = await client.query("SELECT * FROM accounts ORDER BY id");
  for (const { id, owner, balance } of rows) console.log(`${id}: ${owner} has ${balance}`);
  if (rows.length !== 3 || rows[0].owner !== analyst) throw new Error("these are not the rows that were inserted");
  const { rows: sums } = await client.query("SELECT sum(balance) FROM accounts");
  if (sums[0].sum !== "601.50") throw new Error(`expected 601.50 in sum, got ${sums[0].sum}`);
}

let client;
try {
  client = await connect();
  await run(client);
  console.log("The example run was successful 🥳");
} catch (error) {
  console.error(`the application failed: ${error.message}`);
  process.exitCode = 1;
} finally {
  await client?.end();
}
