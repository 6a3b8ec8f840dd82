// Streams the answer to a message; on failure prints why, from the error's ErrorInfo, and exits with 1.
//
//   node chat.js "hello" [127.0.0.1:3272] [session]
//
// Needs nothing generated: the contract is read from the .proto files. AGENTSPACE_PROTO says where they are.

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { fileURLToPath } from "node:url";

const protos = process.env.AGENTSPACE_PROTO ?? fileURLToPath(new URL("../../proto", import.meta.url));
const [content = "hello", target = "127.0.0.1:3272", sessionId = ""] = process.argv.slice(2);

const contract = loader.loadSync("agentspace/v1/chat_service.proto", {
  includeDirs: [protos],
  enums: String,
  longs: Number,
  oneofs: true,
});
const { ChatService } = grpc.loadPackageDefinition(contract).agentspace.v1;
// A long answer may be larger than the 4 MiB that a client takes by default.
const options = { "grpc.max_receive_message_length": 64 * 1024 * 1024 };
const chat = new ChatService(target, grpc.credentials.createInsecure(), options);

// A google.rpc.Status, and the ErrorInfo in its details.
const status = loader.fromJSON({
  nested: {
    Any: { fields: { typeUrl: { type: "string", id: 1 }, value: { type: "bytes", id: 2 } } },
    Status: {
      fields: {
        code: { type: "int32", id: 1 },
        message: { type: "string", id: 2 },
        details: { rule: "repeated", type: "Any", id: 3 },
      },
    },
    ErrorInfo: {
      fields: {
        reason: { type: "string", id: 1 },
        domain: { type: "string", id: 2 },
        metadata: { keyType: "string", type: "string", id: 3 },
      },
    },
    Errors: { methods: { Read: { requestType: "Status", responseType: "ErrorInfo" } } },
  },
});

function errorInfo(error) {
  const [details] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!details) return null;
  const { requestDeserialize, responseDeserialize } = status.Errors.Read;
  const packed = requestDeserialize(details).details.find(({ typeUrl }) => typeUrl.endsWith("/google.rpc.ErrorInfo"));
  return packed ? responseDeserialize(packed.value) : null;
}

const stream = chat.SendMessage({ content, sessionId });
stream.on("data", (response) => {
  if (response.event === "sessionCreated") console.error(`session ${response.sessionCreated.sessionId}`);
  if (response.event === "text") process.stdout.write(response.text.delta);
  if (response.event === "ended") process.stdout.write("\n");
});
stream.on("error", (error) => {
  const info = errorInfo(error);
  console.error(info ? `${info.reason} (${info.domain}): ${error.details} ${JSON.stringify(info.metadata)}` : `${error}`);
  process.exitCode = 1;
});
stream.on("close", () => chat.close());
