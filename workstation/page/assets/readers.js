// Who reads: the name typed in last on this computer, and the person who acts in a reading in this tab.

const LAST = "capsule-edge.reader";
const OF_READING = "capsule-edge.reader-of.";

/** Return the name that was typed in last. */
export const readerName = () => localStorage.getItem(LAST) ?? "";

export function keepReaderName(name) {
  localStorage.setItem(LAST, name);
}

/** Return whether this tab knows who acts in a reading. */
export const hasReader = (readingId) => sessionStorage.getItem(OF_READING + readingId) !== null;

/** Return the person who acts in a reading in this tab: not always the one who opened it. */
export const readerOf = (reading) => sessionStorage.getItem(OF_READING + reading.id) ?? reading.reader;

/** Keep who acts in a reading in this tab from now on. */
export function actAs(readingId, name) {
  sessionStorage.setItem(OF_READING + readingId, name);
  keepReaderName(name);
}
