// Analysis Corp.'s application: writes to and reads from the MongoDB that the inlet brings to its own localhost, port 17017.
//
// It tries 5 times and gives each try 10 seconds (TRIES and TRY_SECONDS say otherwise).
import { MongoClient } from "mongodb";

// A direct connection: the driver would otherwise ask the server where else it lives, and go there.
const url = "mongodb://localhost:17017/?directConnection=true";
const tries = Number(process.env.TRIES ?? 5);
const seconds = Number(process.env.TRY_SECONDS ?? 10);
const analyst = process.env.ANALYST ?? "an analyst";

async function connect() {
  for (let attempt = 1; ; attempt++) {
    const client = new MongoClient(url, { serverSelectionTimeoutMS: seconds * 1000, maxPoolSize: 20 });
    try {
      await client.connect();
      await client.db("admin").command({ ping: 1 });
      return client;
    } catch (error) {
      await client.close();
      if (attempt >= tries) throw error;
      console.log(`try ${attempt} of ${tries}: ${error.message}`);
    }
  }
}

async function run(client) {
  const accounts = client.db("bank").collection(`accounts_${Date.now()}_${process.pid}`);
  const { insertedCount } = await accounts.insertMany([
    { owner: "A", balance: 100.5, asked_by: analyst },
    { owner: "B", balance: 200.25, asked_by: analyst },
    { owner: "C", balance: 300.75, asked_by: analyst },
  ]);
  console.log(`${insertedCount} documents inserted`);

  const rich = await accounts.find({ balance: { $gt: 150 } }).sort({ owner: 1 }).toArray();
  for (const { owner, balance, asked_by } of rich) {
    if (asked_by !== analyst) throw new Error(`a document of ${asked_by} was found`);
    console.log(`${owner} has ${balance}`);
  }
  if (rich.length !== 2) throw new Error(`expected 2 documents, got ${rich.length}`);

  // As many at once as the driver's pool has connections, and then some.
  const sums = await Promise.all(
    Array.from({ length: 100 }, async () => {
      const all = await accounts.find().toArray();
      return all.reduce((sum, { balance }) => sum + balance, 0);
    }),
  );
  if (!sums.every((sum) => sum === 601.5)) throw new Error(`sums differ: ${[...new Set(sums)]}`);
  console.log("100 finds at the same time: each has 3 documents, 601.5 in sum");
  await accounts.drop();
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
  await client?.close();
}
