// Asks a PostgreSQL who it is, with Google's connector: node main.js INSTANCE
import { Connector } from '@google-cloud/cloud-sql-connector';
import pg from 'pg';

const connector = new Connector();
const options = await connector.getOptions({ instanceConnectionName: process.argv[2], ipType: 'PUBLIC' });
const pool = new pg.Pool({ ...options, user: 'joker', database: 'postgres' });
const { rows } = await pool.query("select split_part(version(), ' ', 1) || ' for ' || current_user as text");
console.log(rows[0].text);
await pool.end();
connector.close();
