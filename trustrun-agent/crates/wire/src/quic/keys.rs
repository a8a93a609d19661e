//! Initial keys of the client's side (RFC 9001 5.2), by `ring`.

use ring::{
    aead::{self, Aad, LessSafeKey, Nonce, UnboundKey, quic::HeaderProtectionKey},
    hkdf::{self, HKDF_SHA256, KeyType, Prk, Salt},
};

/// Kinds of long-header packets, as version 1 numbers them (RFC 9000 17.2).
pub(super) const INITIAL: u8 = 0;
pub(super) const RETRY: u8 = 3;

/// Octets of the sample for header protection (RFC 9001 5.4.2), and how far it is from the packet number.
const SAMPLE: usize = 16;
const SAMPLE_AFTER: usize = 4;

/// RFC 9001 5.2
const SALT_V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f,
    0x0a,
];

/// RFC 9369 3.3.1
const SALT_V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e,
    0xd9,
];

/// The versions of QUIC that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// RFC 9000.
    One,
    /// RFC 9369.
    Two,
}

impl Version {
    pub(super) fn known(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::One),
            0x6b33_43cf => Some(Self::Two),
            _ => None,
        }
    }

    /// The kind of the packet with this first octet, as version 1 numbers them. Version 2 shifts them by one
    /// (RFC 9369 3.2).
    pub(super) fn kind(self, first: u8) -> u8 {
        let bits = first >> 4 & 3;
        match self {
            Self::One => bits,
            Self::Two => (bits + 3) % 4,
        }
    }

    fn salt(self) -> &'static [u8] {
        match self {
            Self::One => &SALT_V1,
            Self::Two => &SALT_V2,
        }
    }

    /// Labels for key, IV and header protection (RFC 9001 5.1, RFC 9369 3.3.2).
    pub(super) fn labels(self) -> [&'static [u8]; 3] {
        match self {
            Self::One => [b"quic key", b"quic iv", b"quic hp"],
            Self::Two => [b"quicv2 key", b"quicv2 iv", b"quicv2 hp"],
        }
    }
}

/// What protects the client's Initial packets.
pub(super) struct Keys {
    pub(super) packet: LessSafeKey,
    pub(super) iv: [u8; aead::NONCE_LEN],
    pub(super) header: HeaderProtectionKey,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// A number of octets, for HKDF.
pub(super) struct Octets(pub(super) usize);

impl KeyType for Octets {
    fn len(&self) -> usize {
        self.0
    }
}

/// The secret of the client's side, from the destination connection id of its first packet.
pub(super) fn client_secret(version: Version, id: &[u8]) -> Option<Prk> {
    let initial = Salt::new(HKDF_SHA256, version.salt()).extract(id);
    expand(&initial, b"client in", HKDF_SHA256, |okm| Some(okm.into()))
}

/// HKDF-Expand-Label with an empty context (RFC 8446 7.1).
pub(super) fn expand<L: KeyType, T>(
    secret: &Prk,
    label: &[u8],
    length: L,
    take: impl FnOnce(hkdf::Okm<'_, L>) -> Option<T>,
) -> Option<T> {
    const PREFIX: &[u8] = b"tls13 ";
    let octets = u16::try_from(length.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    take(secret.expand(&[&octets, &label_length, PREFIX, label, &[0]], length).ok()?)
}

impl Keys {
    pub(super) fn derive(version: Version, id: &[u8]) -> Option<Self> {
        let secret = client_secret(version, id)?;
        let [key, iv, hp] = version.labels();
        let mut nonce = [0; aead::NONCE_LEN];
        Some(Self {
            packet: expand(&secret, key, &aead::AES_128_GCM, |okm| Some(LessSafeKey::new(UnboundKey::from(okm))))?,
            iv: expand(&secret, iv, Octets(nonce.len()), |okm| okm.fill(&mut nonce).ok().map(|()| nonce))?,
            header: expand(&secret, hp, &aead::quic::AES_128, |okm| Some(okm.into()))?,
        })
    }

    /// The nonce for a packet number (RFC 9001 5.3).
    pub(super) fn nonce(&self, number: u32) -> Nonce {
        let mut nonce = self.iv;
        for (octet, bits) in nonce.iter_mut().rev().zip(number.to_le_bytes()) {
            *octet ^= bits;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Removes header protection (RFC 9001 5.4.1) and decrypts. The packet number is taken as it is written, in full:
    /// they begin at 0 (RFC 9000 12.3), and a hello does not take 256 packets.
    pub(super) fn open(&self, packet: &[u8], number_at: usize) -> Option<Vec<u8>> {
        let sample_at = number_at.checked_add(SAMPLE_AFTER)?;
        let mask = self.header.new_mask(packet.get(sample_at..sample_at + SAMPLE)?).ok()?;
        let first = packet.first()? ^ (mask[0] & 0x0f);
        let number_length = usize::from(first & 3) + 1;
        let mut header = packet.get(..number_at + number_length)?.to_vec();
        *header.first_mut()? = first;
        let mut number = 0;
        for (octet, mask) in header.get_mut(number_at..)?.iter_mut().zip(mask.iter().skip(1)) {
            *octet ^= mask;
            number = number << 8 | u32::from(*octet);
        }
        let mut payload = packet.get(header.len()..)?.to_vec();
        let length = self.packet.open_in_place(self.nonce(number), Aad::from(&header), &mut payload).ok()?.len();
        payload.truncate(length);
        Some(payload)
    }
}
