// Datastream Corp.'s application: writes a few metrics of its machine to the InfluxDB that the inlet brings to its own
// localhost, port 8086, and reads them back. $USERNAME and $PASSWORD are put in their places before.
//
// It speaks HTTPS with the database itself, end to end through the portal, and tries 10 times, a second apart (TRIES says
// otherwise). The client is one for InfluxDB 1.x, as Debian has it.
import { FieldType, InfluxDB } from "influx";
import os from "node:os";

const tries = Number(process.env.TRIES ?? 10);
const machine = process.env.MACHINE ?? os.hostname();
// No two runs read each other's points.
const run = `${Date.now()}-${process.pid}`;

const influx = new InfluxDB({
  hosts: [
    {
      host: "localhost",
      port: 8086,
      protocol: "https",
      // The certificate names the database's host, which is not localhost. The portal has verified who is at its other end.
      options: { rejectUnauthorized: false },
    },
  ],
  username: "$USERNAME",
  password: "$PASSWORD",
  database: "metrics",
  schema: [
    {
      measurement: "system",
      fields: { load: FieldType.FLOAT, free: FieldType.INTEGER, uptime: FieldType.FLOAT },
      tags: ["machine", "run"],
    },
  ],
});

async function connected() {
  for (let attempt = 1; ; attempt++) {
    try {
      return await influx.getDatabaseNames();
    } catch (error) {
      if (attempt >= tries) throw error;
      console.log(`try ${attempt} of ${tries}: ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

try {
  const names = await connected();
  if (!names.includes("metrics")) await influx.createDatabase("metrics");

  const now = Date.now();
  const points = Array.from({ length: 5 }, (_, index) => ({
    measurement: "system",
    tags: { machine, run },
    fields: { load: os.loadavg()[0], free: os.freemem(), uptime: os.uptime() },
    timestamp: new Date(now - index * 1000),
  }));
  await influx.writePoints(points);
  console.log(`${points.length} points written`);

  const rows = await influx.query(`SELECT * FROM system WHERE run = '${run}' ORDER BY time`);
  for (const row of rows) console.log(`${row.time.toISOString()} ${row.machine}: load ${row.load}, ${row.free} bytes free`);
  if (rows.length !== points.length || !rows.every((row) => row.machine === machine)) {
    throw new Error(`these are not the points that were written: ${JSON.stringify(rows)}`);
  }
  console.log("The example run was successful 🥳");
} catch (error) {
  console.error(`the application failed: ${error.message}`);
  process.exitCode = 1;
}
