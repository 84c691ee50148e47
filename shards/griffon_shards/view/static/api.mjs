// Requests to the server.

export class ApiError extends Error {}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server does not answer; is griffon-shards view still running?", { cause: error });
  }
  if (response.ok) return response;
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).error ?? message;
  } catch (error) {
    if (error.name === "AbortError") throw error; // an answer that is not JSON has only its status
  }
  throw new ApiError(message);
}

async function json(path, options) {
  return (await request(path, options)).json();
}

const query = (params) => (params.size ? `?${params}` : "");

export const sets = () => json("/api/sets");
export const categories = (params, signal) => json(`/api/categories${query(params)}`, { signal });
export const samples = (params, signal) => json(`/api/samples${query(params)}`, { signal });
export const sample = (set, row, params, signal) => json(`/api/samples/${set}/${row}${query(params)}`, { signal });
export const rejects = (params, signal) => json(`/api/rejects${query(params)}`, { signal });
export const marks = (signal) => json("/api/marks", { signal });

/** The figures of a set, or the share of it that is counted so far: `{progress}`. */
export const statistics = (set, signal) => json(`/api/statistics/${set}`, { signal });

export const saveMark = (set, row, note) =>
  request(`/api/marks/${set}/${row}`, {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ note }),
  });
export const removeMark = (set, row) => request(`/api/marks/${set}/${row}`, { method: "DELETE" });

export const imagePath = (set, row) => `/image/${set}/${row}`;
export const thumbnailPath = (set, row) => `/thumbnail/${set}/${row}`;
export const cropPath = (set, row, variant) => `/crop/${set}/${row}?variant=${variant}`;
export const rejectImagePath = (set, number) => `/reject-image/${set}/${number}`;

/** Why an image could not be loaded, as the server says it. */
export async function imageError(path) {
  try {
    await request(path);
    return "the browser cannot show this image";
  } catch (error) {
    return error.message;
  }
}
