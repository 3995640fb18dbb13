// The users that the shop begins with.

/** In the order of their ids, which begin at 1. */
export const firstUsers = [
  ["Ada Lovelace", "London"],
  ["Grace Hopper", "New York"],
  ["Katherine Johnson", "Hampton"],
  ["Alan Turing", "Wilmslow"],
  ["Barbara Liskov", "Boston"],
  ["Edsger Dijkstra", "Nuenen"],
  ["Radia Perlman", "Seattle"],
  ["Ken Thompson", "San Jose"],
  ["Margaret Hamilton", "Boston"],
  ["Dennis Ritchie", "Berkeley Heights"],
  ["Frances Allen", "Peru, New York"],
  ["Donald Knuth", "Stanford"],
  ["Sophie Wilson", "Cambridge"],
  ["Leslie Lamport", "Palo Alto"],
  ["Lynn Conway", "Ann Arbor"],
  ["Niklaus Wirth", "Zürich"],
  ["Jean Bartik", "Philadelphia"],
  ["Tony Hoare", "Oxford"],
  ["Annie Easley", "Cleveland"],
  ["Edmond Halley", "Greenwich"],
].map(([name, city], index) => ({ id: index + 1, name, city }));
