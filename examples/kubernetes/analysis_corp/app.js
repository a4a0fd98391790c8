// Analysis Corp.'s application: uses Bank Corp.'s PostgreSQL as if it ran in this pod.
const { Client } = require("pg");

const attempts = 100;
const pause = 1_000 * Number(process.env.RETRY_SECONDS ?? 10);

async function connect() {
  for (let attempt = 1; ; attempt++) {
    const client = new Client({
      host: "localhost",
      port: 15432,
      user: "analyst",
      database: "ledger",
      password: process.env.PGPASSWORD,
      connectionTimeoutMillis: 5_000,
    });
    try {
      await client.connect();
      return client;
    } catch (error) {
      if (attempt === attempts) throw error;
      console.log(`Attempt ${attempt}: ${error.message}; again in ${pause / 1000} s`);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

async function main() {
  const client = await connect();
  console.log("Connected to PostgreSQL on localhost:15432");

  // The application may run more than once on one database.
  await client.query(
    "CREATE TABLE IF NOT EXISTS accounts (id INT PRIMARY KEY, owner TEXT NOT NULL, balance NUMERIC NOT NULL)",
  );
  for (const account of [
    [1, "A", "100.50"],
    [2, "B", "200.25"],
    [3, "C", "300.75"],
  ]) {
    await client.query(
      "INSERT INTO accounts VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET owner = $2, balance = $3",
      account,
    );
  }
  console.log("3 rows inserted");

  const { rows } = await client.query("SELECT id, owner, balance FROM accounts ORDER BY id");
  for (const row of rows) console.log(`${row.id}  ${row.owner}  ${row.balance}`);
  await client.end();
  console.log("The example run was successful 🥳");
}

main().catch((error) => {
  console.error(`The example failed: ${error.message}`);
  process.exit(1);
});
