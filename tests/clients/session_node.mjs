// node session_node.mjs FOLDER URL STEPS: the `ws` that is installed in the folder goes through the steps of the file. One
// line for each thing that it says, and as the last one what came of it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { session } from "./session.mjs";

const [folder, url, steps] = process.argv.slice(2);
const { WebSocket } = createRequire(`${folder}/`)("ws");
const say = (what) => console.log(JSON.stringify(what));
say(await session(WebSocket, url, JSON.parse(readFileSync(steps)), say));
