// The plainest service there is: it listens on PORT and knows nothing of any mesh.
import { createServer } from "node:http";

createServer((request, response) => {
  response.end(`hello from process ${process.pid}\n`);
}).listen(process.env.PORT ?? 3000, "127.0.0.1");
