# What a connector and an edge say over the control stream and over short RPC streams.
#
# Written from the wire specification, in our own words. Names of types, fields and parameters may change;
# ids, ordinals and types may not: they are what the other side reads. The interface methods' hidden
# parameter and result types have ids derived from the interface id, so they need no fixing here.
#
# Ids that older connectors used and that must not be given to a new type:
#   0xc082ef6e0d42ed1d  Authentication          0xf41a0f001ad49e46  TunnelRegistration
#   0xc793e50592935b4a  RegistrationOptions     0x84cb9536a2cf6d3c  ExistingTunnelPolicy
#   0xf2c68e2547ec3866  ServerInfo              0x82c325a07ad22a65  AuthenticateResponse
#   0xcbd96442ae3bb01a  Tag                     0xea58385c65416035  TunnelServer
# No live type refers to them, so they are listed and not declared.

@0xdb8274f9144abc7e;

struct ClientInfo @0x83ced0145b2f114b {
  clientId @0 :Data;          # 16 bytes, new at every start of the connector
  features @1 :List(Text);
  version @2 :Text;
  arch @3 :Text;              # "linux_amd64"
}

struct ConnectionOptions @0xb4bf9861fe035d04 {
  client @0 :ClientInfo;
  originLocalIp @1 :Data;     # 4 or 16 bytes
  replaceExisting @2 :Bool;
  compressionQuality @3 :UInt8;
  numPreviousAttempts @4 :UInt8;
}

struct ConnectionResponse @0xdbaa9d03d52b62dc {
  result :union {
    error @0 :ConnectionError;
    connectionDetails @1 :ConnectionDetails;
  }
}

struct ConnectionError @0xf5f383d2785edb86 {
  cause @0 :Text;
  retryAfter @1 :Int64;       # nanoseconds
  shouldRetry @2 :Bool;
}

struct ConnectionDetails @0xb5f39f082b9ac18a {
  uuid @0 :Data;              # 16 bytes, of this connection
  locationName @1 :Text;
  tunnelIsRemotelyManaged @2 :Bool;
}

struct TunnelAuth @0x9496331ab9cd463f {
  accountTag @0 :Text;
  tunnelSecret @1 :Data;      # the bytes, not base64
}

struct RegisterUdpSessionResponse @0xab6d5210c1f26687 {
  err @0 :Text;
  spans @1 :Data;
}

struct UpdateConfigurationResponse @0xdb58ff694ba05cf9 {
  latestAppliedVersion @0 :Int32;
  err @1 :Text;
}

# Served by the edge: the bootstrap capability of the control stream.
interface RegistrationServer @0xf71695ec7fe85497 {
  registerConnection @0 (auth :TunnelAuth, tunnelId :Data, connIndex :UInt8, options :ConnectionOptions)
    -> (result :ConnectionResponse);
  unregisterConnection @1 () -> ();
  updateLocalConfiguration @2 (config :Data) -> ();
}

# Served by the connector: UDP flows of the older datagram format.
interface SessionManager @0x839445a59fb01686 {
  registerUdpSession @0 (sessionId :Data, dstIp :Data, dstPort :UInt16, closeAfterIdleHint :Int64,
                         traceContext :Text = "") -> (result :RegisterUdpSessionResponse);
  unregisterUdpSession @1 (sessionId :Data, message :Text) -> ();
}

# Served by the connector: a configuration pushed by the edge, JSON.
interface ConfigurationManager @0xb48edfbdaa25db04 {
  updateConfiguration @0 (version :Int32, config :Data) -> (result :UpdateConfigurationResponse);
}

# What a connector exports on an RPC stream. A call carries the id of the interface that owns the method.
interface CloudflaredServer @0xf548cef9dea2a4a1 extends (SessionManager, ConfigurationManager) {}
